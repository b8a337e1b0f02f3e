"""Weights of one lineage are alike however long they were trained; independent ones are not."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from models.config import NetworkConfig
from models.kinship import KIN, kinship
from models.networks.generator import Generator
from models.registry import build_generator

NETWORK = NetworkConfig(
    resolution=32,
    z_dim=16,
    w_dim=16,
    mapping_layers=2,
    generator_widths=(16, 8, 8, 4),
    discriminator_widths=(16, 8, 8),
)


def drawn(seed: int) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_generator(NETWORK)


def moved(generator: Generator, far: float) -> Generator:
    """The same with noise added, `far` times as long as each weight."""
    other = deepcopy(generator)
    random = np.random.RandomState(3)
    with torch.no_grad():
        for weight in other.parameters():
            noise = torch.from_numpy(random.randn(*weight.shape).astype(np.float32))
            weight.add_(noise * far * weight.norm() / noise.norm())
    return other


@pytest.mark.parametrize("far", [0.0, 0.5, 2.0])
def test_kinship_is_the_cosine_of_how_far_the_weights_went(far: float) -> None:
    first = drawn(0)
    assert kinship(first, moved(first, far)) == pytest.approx((1 + far**2) ** -0.5, abs=0.06)
    assert kinship(first, moved(first, far)) > KIN


@pytest.mark.parametrize("seed", range(1, 6))
def test_independent_weights_are_no_kin(seed: int) -> None:
    assert abs(kinship(drawn(0), drawn(seed))) < KIN / 2
