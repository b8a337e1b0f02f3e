from collections.abc import Callable

import torch

from models.config import TrainConfig
from models.networks.mapping import Mapping


def test_without_layers_w_is_z(small_config: Callable[..., TrainConfig]) -> None:
    z = torch.randn(3, 8)
    assert torch.equal(Mapping(small_config("classic").network)(z), z[:, None, :])


def test_only_the_direction_of_z_counts(small_config: Callable[..., TrainConfig]) -> None:
    mapping = Mapping(small_config().network)
    z = torch.randn(3, 8)
    torch.testing.assert_close(mapping(z), mapping(100 * z))


def test_every_stage_starts_from_the_same_w_computed_by_dense_layers(small_config: Callable[..., TrainConfig]) -> None:
    mapping = Mapping(small_config().network)
    z = torch.randn(3, 8)
    w = mapping(z)
    assert w.shape == (3, 4, 8)
    expected = z / (z.square().sum(dim=1, keepdim=True) / 8).sqrt()
    for layer in mapping.layers:
        expected = expected @ layer.weight.T + layer.bias  # type: ignore[operator]
        expected = torch.where(expected > 0, expected, 0.2 * expected)
    for stage in range(4):
        torch.testing.assert_close(w[:, stage], expected)
