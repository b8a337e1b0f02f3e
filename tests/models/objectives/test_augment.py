from collections.abc import Callable

import numpy as np
import torch

from models.config import TrainConfig
from models.objectives.augment import augment, cut_out, translate


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
            if np.allclose(shifted[picture], padded[picture, :, 2 - dy : 18 - dy, 3 - dx : 27 - dx], atol=1e-6)
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


def test_a_config_without_augmentation_leaves_pictures_as_they_are(small_config: Callable[..., TrainConfig]) -> None:
    images = torch.rand(4, 3, 32, 32)
    assert torch.equal(augment(images, small_config(augment=())), images)


def test_every_picture_gets_its_own_draw_and_the_draws_follow_the_seed(
    small_config: Callable[..., TrainConfig],
) -> None:
    images = torch.rand(1, 3, 32, 32).expand(8, -1, -1, -1)
    torch.manual_seed(3)
    first = augment(images, small_config())
    torch.manual_seed(3)
    assert torch.equal(first, augment(images, small_config()))
    assert len({picture.numpy().tobytes() for picture in first}) > 4


def test_shifts_stay_exact_where_the_networks_run_in_bfloat16() -> None:
    images = torch.rand(4, 3, 32, 32)
    torch.manual_seed(3)
    exact = translate(images, 0.125, 1.0)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(translate(images, 0.125, 1.0), exact)
