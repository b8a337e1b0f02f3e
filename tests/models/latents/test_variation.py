import numpy as np
import pytest
import torch

from models.errors import ModelsError
from models.latents.truncation import truncate
from models.latents.variation import crossing, vary


def test_strength_0_is_the_picture_itself_to_the_last_bit_and_1_the_other_one() -> None:
    w, center, other = torch.randn(5, 8) * 1e3, torch.randn(8), torch.randn(5, 8)
    assert torch.equal(vary(w, center, other, 0.0), w)
    torch.testing.assert_close(vary(w, center, other, 1.0), other, atol=1e-3, rtol=0)


def test_a_neighbour_turns_about_the_center_by_a_quarter_at_most() -> None:
    w, center, other = (np.random.RandomState(i).randn(3, 8).astype(np.float32) for i in range(3))
    angle = 0.3 * np.pi / 2
    expected = center + np.cos(angle) * (w - center) + np.sin(angle) * (other - center)
    found = vary(w, center, other, 0.3)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_neighbours_are_spread_about_the_center_as_pictures_are(strength: float) -> None:
    center = torch.full((16,), 3.0)
    w, other = (truncate(torch.randn(4000, 1, 16) + 3, center, 0.7) for _ in range(2))
    neighbours = vary(w, center, other, strength)
    assert abs(float((neighbours - center).std()) / 0.7 - 1) < 0.02
    torch.testing.assert_close(neighbours.mean(dim=0)[0], center, atol=0.06, rtol=0)


def test_children_take_after_both_parents_and_some_have_whole_layers_of_the_second() -> None:
    children = [crossing(seed, 5) for seed in range(400)]
    even = [child for child in children if child.layers is None]
    layered = [child.layers for child in children if child.layers is not None]
    assert 150 < len(even) < 250
    assert all(0.25 <= child.amount <= 0.75 for child in even)
    assert max(child.amount for child in even) - min(child.amount for child in even) > 0.45
    assert all(child.amount == 1 for child in children if child.layers is not None)
    assert all(layers == tuple(range(layers[0], layers[-1] + 1)) and 0 < len(layers) < 5 for layers in layered)
    assert {layer for layers in layered for layer in layers} == set(range(5))


def test_a_seed_always_has_the_same_child_and_one_layer_cannot_be_parted() -> None:
    assert crossing(7, 5) == crossing(7, 5)
    assert len({crossing(seed, 5) for seed in range(20)}) > 10
    assert all(crossing(seed, 1).layers is None for seed in range(20))
    with pytest.raises(ModelsError, match="num_ws is 0"):
        crossing(0, 0)
