import numpy as np
import pytest

from models.errors import ModelsError, SeedsInvalid
from models.latents.noise_loop import noise_loop, spectrum
from models.latents.seeds import z_from_seeds


@pytest.mark.parametrize("radius", [0.05, 0.7, 2.0, 7.0, 20.0])
def test_the_waves_add_up_to_the_kernel_round_the_circle(radius: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 41)
    waves = np.array(spectrum(radius))
    kernel = np.cos(np.outer(angles, np.arange(len(waves)))) @ waves
    np.testing.assert_allclose(kernel, np.exp(radius**2 * (np.cos(angles) - 1)), atol=1e-12)
    assert min(waves) >= 0


@pytest.mark.parametrize("radius", [0.5, 2.0])
def test_frames_are_normal_and_as_alike_as_the_kernel_says(radius: float) -> None:
    frames, draws = 12, 40_000  # components of z are independent draws of the same field
    path = noise_loop(5, draws, frames, radius).astype(np.float64)
    error = 5 / draws**0.5
    assert np.abs(path.mean(axis=1)).max() < error
    assert np.abs((path**2).mean(axis=1) - 1).max() < 2 * error
    assert np.abs((path**4).mean(axis=1) - 3).max() < 10 * error  # of the normal distribution
    for lag in range(frames):
        alike = (path * np.roll(path, -lag, axis=0)).mean(axis=1)
        expected = np.exp(radius**2 * (np.cos(2 * np.pi * lag / frames) - 1))
        assert np.abs(alike - expected).max() < 2 * error


def test_the_step_from_the_last_frame_to_the_first_is_like_all_others() -> None:
    path = noise_loop(1, 512, 60, 1.5).astype(np.float64)
    steps = np.linalg.norm(np.roll(path, -1, axis=0) - path, axis=1)
    assert 0.8 * np.median(steps) < steps[-1] < 1.2 * np.median(steps)


def test_twice_as_many_frames_are_the_same_path() -> None:
    np.testing.assert_allclose(noise_loop(3, 16, 40, 2.0)[::2], noise_loop(3, 16, 20, 2.0), atol=1e-6)


def test_turns_repeat_the_path() -> None:
    np.testing.assert_allclose(noise_loop(3, 16, 40, 2.0, turns=2)[20:], noise_loop(3, 16, 40, 2.0, turns=2)[:20])
    np.testing.assert_allclose(noise_loop(3, 16, 40, 2.0, turns=2)[:20], noise_loop(3, 16, 20, 2.0), atol=1e-6)


def test_a_larger_radius_changes_more_and_none_stays_with_the_seeds_own_latent() -> None:
    def travelled(radius: float) -> float:
        path = noise_loop(9, 64, 100, radius)
        return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())

    assert travelled(0.2) < travelled(1) < travelled(5)
    np.testing.assert_allclose(noise_loop(9, 64, 3, 0.0), np.repeat(z_from_seeds([9], 64), 3, axis=0), atol=1e-6)


def test_one_seed_is_one_loop() -> None:
    np.testing.assert_array_equal(noise_loop(3, 16, 20, 2.0), noise_loop(3, 16, 20, 2.0))
    assert np.abs(noise_loop(3, 16, 20, 2.0) - noise_loop(4, 16, 20, 2.0)).max() > 0.5
    assert noise_loop(3, 16, 20, 2.0).dtype == np.float32


@pytest.mark.parametrize("radius", [-1.0, 21.0, float("nan")])
def test_a_radius_out_of_bounds_is_refused(radius: float) -> None:
    with pytest.raises(ModelsError, match=r"Radius .* is not from 0 to 20"):
        noise_loop(0, 4, 10, radius)


def test_what_is_no_seed_and_no_loop_is_refused() -> None:
    with pytest.raises(SeedsInvalid):
        noise_loop(2**32, 4, 10, 1.0)
    with pytest.raises(ModelsError, match="0 frames"):
        noise_loop(0, 4, 0, 1.0)
