import numpy as np
import pytest
import torch

from models.metrics import features
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


def test_real_pictures_are_centred_and_each_kind_of_feature_weighs_the_same() -> None:
    real = np.random.RandomState(0).randint(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    points = FeatureSpace.fit(real).project(real)
    torch.testing.assert_close(points.mean(dim=0), torch.zeros(points.shape[1]), atol=1e-4, rtol=0)
    layout, colours, edges = np.split(points.numpy().var(axis=0), [8 * 8 * 3, 8 * 8 * 3 + 4**3])
    for kind in (layout, colours, edges):
        assert kind.sum() == pytest.approx(points.shape[1] / 3, rel=1e-3)


def test_other_real_pictures_are_as_far_apart_as_those_the_space_was_made_from() -> None:
    """With principal components of the 60, the others would lie half as far apart."""
    real = np.random.RandomState(0).randint(0, 256, (120, 8, 8, 3), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    points = FeatureSpace.fit(real[:60]).project(real)
    mine, others = (float(torch.pdist(part).mean()) for part in (points[:60], points[60:]))
    assert mine == pytest.approx(others, rel=0.05)


def test_a_faint_tint_or_noise_moves_a_picture_little() -> None:
    chance = np.random.RandomState(0)
    real = chance.randint(0, 256, (60, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    real[:, :20] = 255  # white, as most of a drawing: on the border of the colour histogram's boxes
    tinted = np.clip(real - np.array([3, 0, 1]), 0, 255).astype(np.uint8)
    space = FeatureSpace.fit(real)
    points = space.project(real)
    moved = torch.linalg.vector_norm(space.project(tinted) - points, dim=1)
    assert float(moved.max()) < 0.15 * float(torch.pdist(points).mean())


def test_the_colour_histogram_is_what_shares_of_each_pixel_give() -> None:
    lab = torch.tensor([[30.0, -70.0, 10.0], [100.0, 0.0, 0.0], [55.0, 99.0, -25.0]])  # three pixels
    found = features._colour_histogram(lab.T.view(1, 3, 1, 3)).view(4, 4, 4)
    expected = np.zeros((4, 4, 4))
    centres = [np.arange(12.5, 100, 25), np.arange(-75, 100, 50), np.arange(-75, 100, 50)]
    for pixel in lab.numpy():
        shares = []
        for value, centre in zip(pixel, centres, strict=True):
            width = centre[1] - centre[0]
            inside = np.clip(value, centre[0], centre[-1])
            shares.append(np.maximum(0, 1 - np.abs(inside - centre) / width))
        expected += np.multiply.outer(np.multiply.outer(*shares[:2]), shares[2]) / 3
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_large_pictures_have_the_features_of_their_averages() -> None:
    small = np.random.RandomState(0).randint(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    space = FeatureSpace.fit(small)
    torch.testing.assert_close(space.project(large), space.project(small), atol=1e-4, rtol=1e-4)


def test_chosen_rows_have_the_features_they_have_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    real = np.random.RandomState(0).randint(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    space = FeatureSpace.fit(real)
    every = space.project(real)
    monkeypatch.setattr(features, "BATCH_PIXELS", 4 * 16 * 16)
    torch.testing.assert_close(space.project(real, np.array([3, 17, 4, 29, 0, 8])), every[[3, 17, 4, 29, 0, 8]])


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
