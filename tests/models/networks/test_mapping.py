from collections.abc import Callable

import pytest
import torch

from models.config import TextConfig, TrainConfig
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


def told(small_config: Callable[..., TrainConfig], text_config: TextConfig) -> Mapping:
    return Mapping(small_config().network.model_copy(update={"text": text_config}))


def test_a_text_joins_z_as_the_middle_of_its_variation_as_long_as_z(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    mapping = told(small_config, text_config).eval()
    z, c = torch.randn(3, 8), torch.randn(3, 6)
    assert mapping.caption is not None
    direction = z / (z.square().sum(dim=1, keepdim=True) / 8).sqrt()
    middle = c @ mapping.caption.mean.weight.T + mapping.caption.mean.bias
    expected = torch.cat([direction, middle / middle.square().mean(dim=1, keepdim=True).sqrt()], dim=1)
    for layer in mapping.layers:
        expected = expected @ layer.weight.T + layer.bias  # type: ignore[operator]
        expected = torch.where(expected > 0, expected, 0.2 * expected)
    torch.testing.assert_close(mapping(z, c), expected[:, None].expand(3, 4, 8))


def test_in_training_the_same_z_and_text_are_drawn_anew(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    mapping, z, c = told(small_config, text_config), torch.randn(3, 8), torch.randn(3, 6)
    assert not torch.equal(mapping(z, c), mapping(z, c))


def test_a_mapping_that_takes_texts_is_not_silently_left_without(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    with pytest.raises(ValueError, match="takes a text vector too"):
        told(small_config, text_config)(torch.randn(3, 8))


def test_the_divergence_is_that_of_the_variation_and_none_without_texts(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    c = torch.randn(3, 6)
    mapping = told(small_config, text_config)
    assert mapping.caption is not None
    assert torch.equal(mapping.divergence(c), mapping.caption.divergence(c))
    assert torch.equal(Mapping(small_config().network).divergence(c), torch.zeros(3))
