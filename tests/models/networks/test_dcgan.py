from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.config import TrainConfig
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_discriminator, build_generator


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_classic_at_64_pixels_has_the_parameters_of_the_paper_counted_layer_by_layer() -> None:
    network = preset("classic", 64).network
    kernels = [100 * 512, 512 * 256, 256 * 128, 128 * 64, 64 * 3]
    generator_norms = 2 * (512 + 256 + 128 + 64)
    assert parameters(build_generator(network)) == 16 * sum(kernels) + generator_norms == 3_576_704
    kernels = [3 * 64, 64 * 128, 128 * 256, 256 * 512, 512 * 1]
    discriminator_norms = 2 * (128 + 256 + 512)  # none after the first layer
    assert parameters(build_discriminator(network)) == 16 * sum(kernels) + discriminator_norms == 2_765_568


@pytest.mark.parametrize("name", ["classic", "tiny"])
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_every_preset_paints_and_judges_pictures_of_its_resolution(name: str, resolution: int) -> None:
    network = preset(name, resolution).network
    with torch.device("meta"):
        generator, discriminator = build_generator(network), build_discriminator(network)
        w = generator.mapping(torch.empty(2, network.z_dim))
        x = generator.synthesis(w)
        critique = discriminator(x)
    assert w.shape == (2, generator.num_ws, generator.w_dim)
    assert x.shape == (2, 3, resolution, resolution)
    assert critique.logits.shape == (2, 1)
    assert (critique.vector, critique.maps) == (None, ())


def test_first_weights_of_classic_spread_as_in_the_paper() -> None:
    for network in (build_generator(preset("classic", 64).network), build_discriminator(preset("classic", 64).network)):
        for name, weight in network.named_parameters():
            if weight.ndim == 4 and weight.numel() > 10_000:
                assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05), name
                assert float(weight.detach().mean()) == pytest.approx(0.0, abs=1e-3), name


def test_a_discriminator_without_normalisation_keeps_the_scale_of_its_input() -> None:
    logits = build_discriminator(preset("tiny", 64).network)(torch.randn(64, 3, 64, 64)).logits
    assert 0.2 < float(logits.detach().std()) < 5  # He's first weights; with 0.02 it is about 0.01


def test_pictures_are_synthesis_of_mapping_and_lie_between_minus_one_and_one(small_generator: Generator) -> None:
    z = torch.randn(4, small_generator.z_dim) * 10
    x = small_generator(z)
    assert torch.equal(x, small_generator.synthesis(small_generator.mapping(z)))
    assert float(x.detach().abs().max()) <= 1


def test_each_w_changes_the_picture_through_its_own_stage_only(small_generator: Generator) -> None:
    w = small_generator.mapping(torch.randn(1, small_generator.z_dim))
    seen: dict[int, Tensor] = {}
    for stage, norm in enumerate(small_generator.synthesis.norms):  # type: ignore[arg-type]
        norm.affine.register_forward_hook(lambda _m, _i, output, stage=stage: seen.__setitem__(stage, output.clone()))
    x = small_generator.synthesis(w)
    for changed in range(small_generator.num_ws):
        before = dict(seen)
        other = w.clone()
        other[:, changed] += 1
        assert not torch.equal(small_generator.synthesis(other), x)
        assert [s for s in seen if not torch.equal(seen[s], before[s])] == [changed]
        small_generator.synthesis(w)


def test_a_discriminator_without_normalisation_judges_each_picture_alone(
    small_config: Callable[..., TrainConfig],
) -> None:
    discriminator = build_discriminator(small_config().network)
    x = torch.randn(5, 3, 32, 32)
    alone = torch.cat([discriminator(picture[None]).logits for picture in x])
    torch.testing.assert_close(discriminator(x).logits, alone)


def test_grey_pictures_have_one_channel(small_config: Callable[..., TrainConfig]) -> None:
    network = small_config().network.model_copy(update={"channels": 1})
    x = build_generator(network)(torch.randn(2, network.z_dim))
    assert x.shape == (2, 1, 32, 32)
    assert build_discriminator(network)(x).logits.shape == (2, 1)


def test_the_logit_is_the_papers_last_convolution_and_the_summary_what_it_sees(
    small_config: Callable[..., TrainConfig],
) -> None:
    discriminator = build_discriminator(small_config().network)
    x = torch.randn(5, 3, 32, 32)
    critic: nn.Module = discriminator.critic
    seen = critic.features(x)  # type: ignore[operator]
    assert seen.shape == (5, 8, 4, 4)
    features = critic(x)
    torch.testing.assert_close(features.logits, critic.logit(seen).flatten(1))  # type: ignore[operator]
    assert torch.equal(features.summary, seen.flatten(1))
    assert features.summary.shape == (5, critic.summary_dim)


def test_the_stages_are_the_halvings_of_the_side_from_the_pixels_on(small_config: Callable[..., TrainConfig]) -> None:
    critic = build_discriminator(small_config().network).critic
    sides, x = [], torch.randn(1, 3, 32, 32)
    for stage in critic.stages:  # type: ignore[union-attr]
        x = stage(x)  # type: ignore[operator]
        sides.append(x.shape[-1])
    assert sides == [16, 8, 4]
