from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import TrainConfig
from models.objectives.augment import augment, cut_out, recolour, translate

ALL = ("color", "translation", "cutout")
Operation = Callable[[Tensor, float], Tensor]

OPERATIONS: dict[str, Operation] = {
    "recolour": recolour,
    "translate": lambda images, probability: translate(images, 0.5, 0.75, probability),
    "cut out": lambda images, probability: cut_out(images, 0.5, probability),
}


def test_a_translation_shifts_by_whole_pixels_and_fills_with_the_background() -> None:
    images = torch.rand(64, 3, 16, 24) - 0.5
    shifted = translate(images, 0.125, fill=1.0).numpy()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (3, 3)), constant_values=1.0)
    found = set()
    for picture in range(64):
        candidates = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-3, 4)
            if (shifted[picture] == padded[picture, :, 2 - dy : 18 - dy, 3 - dx : 27 - dx]).all()
        ]
        assert len(candidates) == 1
        found |= set(candidates)
    assert {dy for dy, _ in found} == set(range(-2, 3))
    assert {dx for _, dx in found} == set(range(-3, 4))


def test_a_cutout_greys_one_square_and_leaves_the_rest() -> None:
    images = torch.rand(64, 3, 16, 16) + 1
    cut = cut_out(images, 0.5)
    gone = cut == 0
    assert torch.equal(cut[~gone], images[~gone])
    areas = set()
    for picture in gone:
        assert torch.equal(picture[0], picture[1])
        rows, columns = picture[0].any(dim=1), picture[0].any(dim=0)
        assert torch.equal(picture[0], rows[:, None] & columns)
        areas.add(int(rows.sum() * columns.sum()))
    assert max(areas) == 64  # a whole square of 8 x 8 ...
    assert min(areas) < 64  # ... and one partly outside


def colour_changes(images: NDArray[Any], changed: NDArray[Any]) -> NDArray[Any]:
    """The brightness, saturation and contrast [N, 3] that explain each changed picture, worked back from its pixels.

    The three in turn come to `a * picture + b * grey + c`, with contrast a + b, saturation a / (a + b), and c the
    brightness and what contrast takes from the mean. That they explain it is checked by applying them in turn.
    """
    found = []
    for before, after in zip(images, changed, strict=True):
        grey = np.broadcast_to(before.mean(axis=0), before.shape)
        columns = np.stack([before.ravel(), grey.ravel(), np.ones(before.size)], axis=1)
        (a, b, c), *_ = np.linalg.lstsq(columns, after.ravel())
        contrast, saturation = a + b, a / (a + b)
        brightness = c - (1 - contrast) * before.mean()
        brighter = before + brightness
        grey = brighter.mean(axis=0)
        saturated = grey + (brighter - grey) * saturation
        contrasted = saturated.mean() + (saturated - saturated.mean()) * contrast
        np.testing.assert_allclose(after, contrasted, atol=1e-9)
        found.append((brightness, saturation, contrast))
    return np.array(found)


def test_recolouring_is_brightness_then_saturation_then_contrast_drawn_evenly_for_each_picture() -> None:
    images = torch.rand(2000, 3, 4, 4, dtype=torch.float64) + 4  # far from 0, so that a wrong mean would show
    found = colour_changes(images.numpy(), recolour(images).numpy())
    evenly = (np.arange(2000) + 0.5) / 2000
    for changes, low, high in zip(found.T, (-0.5, 0.0, 0.5), (0.5, 2.0, 1.5), strict=True):
        np.testing.assert_allclose(np.sort((changes - low) / (high - low)), evenly, atol=1.63 / 2000**0.5)  # KS, 1%
    assert np.abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.07


def test_each_colour_change_reaches_its_own_share_of_the_pictures() -> None:
    images = torch.rand(2000, 3, 4, 4, dtype=torch.float64)
    found = colour_changes(images.numpy(), recolour(images, 0.3).numpy())
    changed = np.abs(found - [0, 1, 1]) > 1e-9  # [N, 3]
    assert changed.mean(axis=0) == pytest.approx([0.3] * 3, abs=0.04)  # 4 standard deviations
    pairs = [(changed[:, one] & changed[:, other]).mean() for one, other in ((0, 1), (0, 2), (1, 2))]
    assert pairs == pytest.approx([0.09] * 3, abs=0.026)


def test_a_grey_picture_has_no_saturation_to_change() -> None:
    images = torch.rand(8, 1, 4, 4, dtype=torch.float64).expand(-1, 3, -1, -1)
    changed = recolour(images)
    torch.testing.assert_close(changed, changed[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["translate", "cut out"])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_an_operation_changes_its_share_of_the_pictures_and_leaves_the_others_as_they_are(
    name: str, probability: float
) -> None:
    images = torch.rand(4000, 1, 8, 8)
    torch.manual_seed(1)
    every = OPERATIONS[name](images, 1.0)
    torch.manual_seed(1)
    some = OPERATIONS[name](images, probability)
    can_change = (every != images).flatten(1).any(dim=1)
    changed = (some != images).flatten(1).any(dim=1)
    assert torch.equal(some[changed], every[changed])
    spread = (probability * (1 - probability) / float(can_change.sum())) ** 0.5
    assert float(changed[can_change].float().mean()) == pytest.approx(probability, abs=4 * spread)


@pytest.mark.parametrize("name", OPERATIONS)
def test_with_probability_0_nothing_changes(name: str) -> None:
    images = torch.randn(64, 3, 8, 8)
    assert torch.equal(OPERATIONS[name](images, 0.0), images)


def test_every_picture_and_operation_is_chosen_alone(small_config: Callable[..., TrainConfig]) -> None:
    images = torch.full((4000, 1, 8, 8), 0.25)
    config = small_config(augment=("translation", "cutout"), translation_fraction=0.5, cutout_fraction=0.9)
    changed = augment(images, config, 0.5).flatten(1)
    shifted, cut = (changed == 1).any(dim=1), (changed == 0).any(dim=1)
    assert float((shifted & cut).float().mean()) == pytest.approx(
        float(shifted.float().mean() * cut.float().mean()), abs=0.03
    )
    assert float((shifted[1:] & shifted[:-1]).float().mean()) == pytest.approx(
        float(shifted.float().mean()) ** 2, abs=0.03
    )


def test_the_probability_does_not_change_what_is_drawn_next(small_config: Callable[..., TrainConfig]) -> None:
    images, states = torch.rand(5, 3, 32, 32), []
    for probability in (0.0, 0.3, 1.0):
        torch.manual_seed(3)
        augment(images, small_config(augment=ALL), probability)
        states.append(torch.get_rng_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_a_config_names_the_operations(small_config: Callable[..., TrainConfig]) -> None:
    images = torch.rand(16, 3, 32, 32)
    assert torch.equal(augment(images, small_config(augment=())), images)
    alone: dict[str, Callable[[Tensor], Tensor]] = {
        "color": lambda given: recolour(given, 0.5),
        "translation": lambda given: translate(given, 0.25, -1.0, 0.5),
        "cutout": lambda given: cut_out(given, 0.3, 0.5),
    }
    for name, operation in alone.items():
        config = small_config(augment=(name,), translation_fraction=0.25, augment_fill=-1.0, cutout_fraction=0.3)
        torch.manual_seed(3)
        expected = operation(images)
        torch.manual_seed(3)
        assert torch.equal(augment(images, config, 0.5), expected)
        assert not torch.equal(expected, images)


def test_every_picture_gets_its_own_draw_and_the_draws_follow_the_seed(
    small_config: Callable[..., TrainConfig],
) -> None:
    images = torch.rand(1, 3, 32, 32).expand(8, -1, -1, -1)
    torch.manual_seed(3)
    first = augment(images, small_config(augment=ALL))
    torch.manual_seed(3)
    assert torch.equal(first, augment(images, small_config(augment=ALL)))
    assert len({picture.numpy().tobytes() for picture in first}) == 8


def test_shifts_stay_exact_where_the_networks_run_in_bfloat16() -> None:
    images = torch.rand(4, 3, 32, 32)
    torch.manual_seed(3)
    exact = translate(images, 0.125, 1.0)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(translate(images, 0.125, 1.0), exact)


@pytest.mark.parametrize("probability", [1.0, 0.5])
@pytest.mark.parametrize("name", OPERATIONS)
def test_first_and_second_derivatives_are_what_finite_differences_give(name: str, probability: float) -> None:
    layers = (nn.Conv2d(3, 2, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(32, 1))
    critic = nn.Sequential(*layers).double().requires_grad_(False)
    images = torch.rand(3, 3, 4, 4, dtype=torch.float64, requires_grad=True)

    def judged(images: Tensor) -> Tensor:
        torch.manual_seed(5)  # the same changes every time
        return critic(OPERATIONS[name](images, probability))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(judged, (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(judged, (images,), fast_mode=True)
