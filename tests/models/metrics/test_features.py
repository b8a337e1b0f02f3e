import numpy as np
import pytest
import torch

from models.metrics.features import FeatureSpace, srgb_to_lab


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # CIE L*a*b* (D65) of the sRGB primaries, as colour tables print them
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
    ],
)
def test_lab_is_what_colour_tables_say(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    pixel = torch.tensor(rgb).view(1, 3, 1, 1) / 255
    np.testing.assert_allclose(srgb_to_lab(pixel).flatten(), lab, atol=0.03)


def test_real_pictures_are_centred_and_uncorrelated_in_their_own_space() -> None:
    real = np.random.RandomState(0).randint(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    points = FeatureSpace.fit(real).project(real)
    assert points.shape == (100, 64)
    torch.testing.assert_close(points.mean(dim=0), torch.zeros(64), atol=1e-5, rtol=0)
    covariance = points.T @ points / 100
    off_diagonal = covariance - torch.diag(covariance.diagonal())
    assert float(off_diagonal.abs().max()) < 1e-3 * float(covariance.max())


def colour_and_stripes(colour: tuple[int, int, int], *, vertical: bool) -> np.ndarray:
    image = np.full((32, 32, 3), 255, dtype=np.uint8)
    stripe = np.s_[:, 8:12] if vertical else np.s_[8:12, :]
    image[stripe] = colour
    return image


def test_pictures_that_differ_in_colour_or_in_direction_are_apart() -> None:
    noise = np.random.RandomState(0).randint(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    red, blue = (255, 0, 0), (0, 0, 255)
    images = np.stack([
        colour_and_stripes(red, vertical=True),
        colour_and_stripes(blue, vertical=True),
        colour_and_stripes(red, vertical=False),
        colour_and_stripes(red, vertical=True),
    ])  # fmt: skip
    points = FeatureSpace.fit(np.concatenate([noise, images])).project(images)
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(apart[0, 1]) > 0.1
    assert float(apart[0, 2]) > 0.1
    assert float(apart[0, 3]) == pytest.approx(0, abs=1e-5)


def test_grey_pictures_have_features_too() -> None:
    grey = np.random.RandomState(0).randint(0, 256, (20, 16, 16, 1), dtype=np.uint8)
    colour = FeatureSpace.fit(grey.repeat(3, axis=3)).project(grey.repeat(3, axis=3))
    torch.testing.assert_close(FeatureSpace.fit(grey).project(grey), colour)
