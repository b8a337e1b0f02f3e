from collections.abc import Callable

import numpy as np
import torch

from models.config import TrainConfig
from models.latents.truncation import center, estimate_w_avg, no_text, truncate, update_w_avg
from models.networks.generator import Generator
from models.registry import build_generator


def test_psi_is_the_part_of_the_way_from_the_mean_to_w() -> None:
    w, mean = torch.randn(2, 3, 4), torch.randn(4)
    for psi in (-1.0, 0.0, 0.7, 2.0):
        torch.testing.assert_close(truncate(w, mean, psi), mean + psi * (w - mean))


def test_psi_one_is_w_itself_to_the_last_bit() -> None:
    w, mean = torch.randn(2, 3, 4), torch.randn(4) * 1e3
    assert torch.equal(truncate(w, mean, 1.0), w)


def test_every_picture_of_a_batch_may_have_its_own_psi() -> None:
    w, mean = torch.randn(3, 2, 4), torch.randn(4)
    together = truncate(w, mean, torch.tensor([0.0, 0.5, 1.0]))
    for row, psi in enumerate((0.0, 0.5, 1.0)):
        assert torch.equal(together[row], truncate(w[row : row + 1], mean, psi)[0])


def test_layers_from_the_cutoff_on_are_left_alone() -> None:
    w, mean = torch.randn(2, 4, 5), torch.randn(5)
    truncated = truncate(w, mean, 0.0, cutoff=1)
    assert torch.equal(truncated[:, :1], mean.expand(2, 1, 5))
    assert torch.equal(truncated[:, 1:], w[:, 1:])


def test_the_estimated_mean_is_the_mean_over_other_latents_too(small_generator: Generator) -> None:
    other = torch.from_numpy(np.random.RandomState(99).randn(20_000, small_generator.z_dim).astype(np.float32))
    with torch.no_grad():
        w = small_generator.mapping(other)[:, 0]
    estimate = estimate_w_avg(small_generator)
    assert torch.equal(estimate, estimate_w_avg(small_generator))
    deviations = (estimate - w.mean(dim=0)) / (w.std(dim=0) * (1 / 10_000 + 1 / 20_000) ** 0.5)
    assert float(deviations.abs().max()) < 5


def test_where_w_is_z_the_mean_is_zero(small_config: Callable[..., TrainConfig]) -> None:
    generator = build_generator(small_config("classic").network)
    generator.w_avg.fill_(1)
    update_w_avg(generator)
    assert torch.equal(generator.w_avg, torch.zeros(8))


def test_every_picture_of_a_batch_may_have_its_own_middle() -> None:
    w, middles = torch.randn(3, 2, 4), torch.randn(3, 1, 4)
    together = truncate(w, middles, 0.4, cutoff=1)
    for row in range(3):
        torch.testing.assert_close(together[row], truncate(w[row : row + 1], middles[row, 0], 0.4, cutoff=1)[0])


def test_the_middle_of_a_text_is_the_mean_over_other_latents_with_that_text(prompted_generator: Generator) -> None:
    other = torch.from_numpy(np.random.RandomState(99).randn(20_000, prompted_generator.z_dim).astype(np.float32))
    texts = torch.randn(2, 6)
    middles = []
    for text in texts:
        with torch.no_grad():
            w = prompted_generator.mapping(other, text.expand(20_000, -1))[:, 0]
        middles.append(center(prompted_generator, text[None]))
        assert torch.equal(middles[-1], center(prompted_generator, text[None]))
        deviations = (middles[-1] - w.mean(dim=0)) / (w.std(dim=0) * (1 / 1_000 + 1 / 20_000) ** 0.5 + 1e-6)
        assert float(deviations.abs().max()) < 5
    assert float((middles[0] - middles[1]).abs().max()) > 0.1


def test_the_middle_is_the_same_while_g_trains_and_g_trains_on(prompted_generator: Generator) -> None:
    text = torch.randn(1, 6)
    expected = center(prompted_generator.eval(), text)
    prompted_generator.train()
    assert torch.equal(center(prompted_generator, text), expected)  # the middle of a text, not draws around it
    assert prompted_generator.training


def test_w_avg_is_the_middle_of_no_text(prompted_generator: Generator) -> None:
    silence = no_text(prompted_generator)
    assert silence is not None
    assert prompted_generator.text is not None
    assert torch.equal(silence, prompted_generator.text(torch.zeros(1, 256)))
    update_w_avg(prompted_generator)
    torch.testing.assert_close(prompted_generator.w_avg, center(prompted_generator, silence, samples=10_000))


def test_a_generator_that_knows_no_texts_has_no_text(small_generator: Generator) -> None:
    assert no_text(small_generator) is None
