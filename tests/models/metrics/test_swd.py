import numpy as np
import pytest
from numpy.typing import NDArray

from models.metrics import swd
from models.metrics.swd import sliced_wasserstein


def pictures(count: int, seed: int, *, side: int = 32, scale: int = 4) -> NDArray[np.uint8]:
    """Random colour blocks of `scale` pixels."""
    blocks = np.random.RandomState(seed).randint(0, 256, (count, side // scale, side // scale, 3), dtype=np.uint8)
    return blocks.repeat(scale, axis=1).repeat(scale, axis=2)


def test_a_set_is_at_distance_zero_from_itself_up_to_where_its_patches_lie() -> None:
    a, b = pictures(64, 0), pictures(64, 1)
    itself, same_kind = sliced_wasserstein(a, a), sliced_wasserstein(a, b)
    other_kind = sliced_wasserstein(a, pictures(64, 1, scale=8))
    assert itself.mean < same_kind.mean < 0.5 * other_kind.mean


def test_there_is_a_level_for_every_halving_to_16_pixels() -> None:
    result = sliced_wasserstein(pictures(4, 0, side=64), pictures(4, 1, side=64))
    assert list(result.levels) == [64, 32, 16]
    assert result.mean == pytest.approx(sum(result.levels.values()) / 3)


def test_noise_is_seen_at_the_finest_level_and_layout_at_the_coarsest() -> None:
    flat = pictures(64, 0, scale=16)
    noisy = np.clip(flat.astype(int) + np.random.RandomState(5).randint(-60, 60, flat.shape), 0, 255).astype(np.uint8)
    levels = sliced_wasserstein(flat, noisy).levels
    assert levels[32] > 3 * levels[16]


def test_the_finest_level_is_what_plain_arithmetic_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pyramid, normalisation and sorting written out, with every patch there is in place of random ones."""
    monkeypatch.setattr(swd, "PATCHES_PER_IMAGE", 2048)
    a, b = pictures(16, 0), pictures(16, 1, scale=8)
    measured = sliced_wasserstein(a, b, projections=256).levels[32]

    def laplacian(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        x = images.astype(float)
        taps = np.array([1, 4, 6, 4, 1]) / 16

        def blur(y: NDArray[np.float64]) -> NDArray[np.float64]:
            p = np.pad(y, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
            windows = np.lib.stride_tricks.sliding_window_view(p, (5, 5), axis=(1, 2))
            blurred: NDArray[np.float64] = np.einsum("nhwcij,i,j->nhwc", windows, taps, taps)
            return blurred

        sparse = np.zeros_like(x)
        sparse[:, ::2, ::2] = blur(x)[:, ::2, ::2]
        return x - 4 * blur(sparse)

    def vectors(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        level = laplacian(images)
        windows = np.lib.stride_tricks.sliding_window_view(level, (7, 7), axis=(1, 2))
        every = windows.reshape(-1, 3, 49)
        every = (every - every.mean(axis=(0, 2), keepdims=True)) / every.std(axis=(0, 2), keepdims=True)
        return np.asarray(every.reshape(-1, 147))

    directions = np.random.RandomState(1).randn(147, 256)
    directions /= np.linalg.norm(directions, axis=0)
    sorted_a, sorted_b = (np.sort(vectors(images) @ directions, axis=0) for images in (a, b))
    assert measured == pytest.approx(1e3 * np.abs(sorted_a - sorted_b).mean(), rel=0.1)


def test_the_same_seed_gives_the_same_distance() -> None:
    a, b = pictures(8, 0), pictures(8, 1)
    assert sliced_wasserstein(a, b, 3) == sliced_wasserstein(a, b, 3)
    assert sliced_wasserstein(a, b, 3) != sliced_wasserstein(a, b, 4)


def test_sets_of_different_size_are_refused() -> None:
    with pytest.raises(ValueError, match="sets of one size"):
        sliced_wasserstein(pictures(4, 0), pictures(5, 0))
