from collections.abc import Callable

import numpy as np
import torch

from models.config import TrainConfig
from models.latents.truncation import estimate_w_avg, truncate, update_w_avg
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
