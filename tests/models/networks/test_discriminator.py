from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from models.config import NetworkConfig, TextConfig, TrainConfig
from models.networks.discriminator import Critique, Discriminator, Features
from models.registry import ARCHITECTURES, build_discriminator


class Sums(nn.Module):
    """Two logits a picture, and a summary: the sum of each of its channels."""

    summary_dim = 3

    def __init__(self, _config: NetworkConfig) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Features:
        sums = x.sum(dim=(2, 3))
        return Features(sums[:, :2], sums)


def network(small_config: Callable[..., TrainConfig], text: TextConfig | None, **fields: object) -> NetworkConfig:
    return small_config().network.model_copy(update={"text": text, **fields})


def test_a_picture_with_a_text_gets_the_product_of_both_vectors_on_top_of_its_logits() -> None:
    critique = Critique(torch.randn(4, 3), torch.randn(4, 6))
    texts = torch.randn(4, 6)
    given = critique.given(texts)
    for picture in range(4):
        fit = sum(float(critique.vector[picture, i] * texts[picture, i]) for i in range(6)) / sqrt(6)  # type: ignore[index]
        for place in range(3):
            assert float(given[picture, place]) == pytest.approx(float(critique.logits[picture, place]) + fit, abs=1e-5)


def test_how_every_picture_fits_every_text_is_what_that_text_adds() -> None:
    critique = Critique(torch.randn(4, 2), torch.randn(4, 6))
    texts = torch.randn(5, 6)
    match = critique.match(texts)
    assert match.shape == (4, 5)
    for picture in range(4):
        for number in range(5):
            added = critique.given(texts[number].expand(4, 6)) - critique.logits
            torch.testing.assert_close(added[picture], match[picture, number].expand(2))


def test_texts_are_matched_in_full_precision_under_autocast() -> None:
    critique, texts = Critique(torch.randn(4, 1), torch.randn(4, 6)), torch.randn(5, 6)
    exact = critique.match(texts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(critique.match(texts), exact)


def test_without_a_text_or_without_knowing_any_the_logits_stand() -> None:
    told, untold = Critique(torch.randn(2, 1), torch.randn(2, 6)), Critique(torch.randn(2, 1), None)
    assert torch.equal(told.given(None), told.logits)
    assert torch.equal(untold.given(None), untold.logits)
    with pytest.raises(ValueError, match="knows no texts"):
        untold.match(torch.randn(1, 6))


def test_the_vector_of_a_picture_is_a_projection_of_its_summary(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    discriminator = Discriminator(network(small_config, text_config), Sums)
    x = torch.randn(5, 3, 8, 8)
    critique = discriminator(x)
    assert discriminator.compare is not None
    torch.testing.assert_close(critique.vector, x.sum(dim=(2, 3)) @ discriminator.compare.weight.T)
    assert critique.logits.shape == (5, 2)
    without = Discriminator(network(small_config, None), Sums)
    assert without(x).vector is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_critic_judges_pictures_by_texts(
    architecture: str, small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    widths = {"discriminator_widths": (8, 8, 8, 8)} if architecture == "r3gan" else {}
    discriminator = build_discriminator(network(small_config, text_config, architecture=architecture, **widths))
    critique = discriminator(torch.randn(3, 3, 32, 32))
    texts = torch.randn(3, 6)
    assert critique.given(texts).shape == critique.logits.shape
    torch.testing.assert_close(
        critique.given(texts) - critique.logits, critique.match(texts).diagonal()[:, None].expand_as(critique.logits)
    )
    assert 0.01 < float(critique.vector.detach().std()) < 100


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_frozen_stages_are_the_first_from_the_pixels_on_and_no_others(
    count: int, architecture: str, small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    widths = {"discriminator_widths": (8, 8, 8, 8)} if architecture == "r3gan" else {}
    discriminator = build_discriminator(network(small_config, text_config, architecture=architecture, **widths))
    discriminator.freeze(count)
    stages: list[nn.Module] = list(discriminator.critic.stages)  # type: ignore[arg-type]
    assert len(stages) >= 3
    kept = {id(parameter) for stage in stages[:count] for parameter in stage.parameters()}
    assert bool(kept) == bool(count)
    for parameter in discriminator.parameters():
        assert parameter.requires_grad == (id(parameter) not in kept)


def test_what_a_critic_redraws_from_is_handed_on(small_config: Callable[..., TrainConfig]) -> None:
    discriminator = build_discriminator(network(small_config, None, architecture="fastgan"))
    x = torch.randn(2, 3, 32, 32)
    critique = discriminator(x)
    torch.manual_seed(1)
    found = discriminator.redraw_loss(x, critique.maps)
    torch.manual_seed(1)
    assert torch.equal(found, discriminator.critic.redraw_loss(x, discriminator.critic(x).maps))  # type: ignore[operator]
