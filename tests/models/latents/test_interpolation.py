import numpy as np
import pytest

from models.errors import ModelsError
from models.latents.easing import EASINGS
from models.latents.interpolation import INTERPOLATIONS, Positions, lerp, positions, slerp, spline
from models.latents.seeds import z_from_seeds

PATHS = sorted(INTERPOLATIONS)


def _steps(frames: np.ndarray) -> np.ndarray:
    """The distance from every frame to the next, and from the last to the first."""
    following = np.roll(frames.astype(np.float64), -1, axis=0)
    return np.linalg.norm((following - frames).reshape(len(frames), -1), axis=1)


def test_a_closed_path_counts_frames_round_all_keyframes_and_never_repeats_the_first() -> None:
    at = positions(3, 6, closed=True)
    np.testing.assert_array_equal(at.segments, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(at.fractions, [0, 0.5, 0, 0.5, 0, 0.5])


def test_an_open_path_has_both_its_ends() -> None:
    at = positions(3, 5, closed=False)
    np.testing.assert_array_equal(at.segments, [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(at.fractions, [0, 0.5, 0, 0.5, 1])


def test_frames_that_keyframes_do_not_divide_are_evenly_spread_all_the_same() -> None:
    at = positions(3, 7, closed=True)
    np.testing.assert_allclose(at.segments + at.fractions, np.arange(7) * 3 / 7, atol=1e-15)
    at = positions(4, 9, closed=False)
    np.testing.assert_allclose(at.segments + at.fractions, np.arange(9) * 3 / 8, atol=1e-15)


def test_easing_bends_the_time_within_each_segment() -> None:
    at = positions(2, 8, closed=True, easing="in_quad")
    np.testing.assert_allclose(at.fractions, [0, 1 / 16, 1 / 4, 9 / 16] * 2)


def test_one_frame_and_one_keyframe_are_paths_too() -> None:
    keyframes = z_from_seeds([1, 2], 4)
    for path in INTERPOLATIONS.values():
        np.testing.assert_array_equal(path(keyframes, positions(2, 1, closed=False)), keyframes[:1])
        for closed in (True, False):
            staying = path(keyframes[:1], positions(1, 3, closed=closed))
            np.testing.assert_array_equal(staying, np.repeat(keyframes[:1], 3, axis=0))


@pytest.mark.parametrize(("keyframes", "frames"), [(0, 5), (3, 0)])
def test_a_path_of_nothing_is_refused(keyframes: int, frames: int) -> None:
    with pytest.raises(ModelsError, match="has one of each at least"):
        positions(keyframes, frames, closed=True)


def test_an_unknown_easing_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelsError, match=r"no easing 'ease'.*linear.*bounce_out"):
        positions(2, 5, closed=True, easing="ease")


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("easing", EASINGS)
def test_every_path_passes_its_keyframes_themselves(kind: str, easing: str) -> None:
    keyframes = z_from_seeds([1, 2, 3, 4], 16)
    closed = INTERPOLATIONS[kind](keyframes, positions(4, 20, closed=True, easing=easing))
    np.testing.assert_array_equal(closed[::5], keyframes)
    ends = INTERPOLATIONS[kind](keyframes, positions(4, 13, closed=False, easing=easing))
    np.testing.assert_array_equal(ends[::4], keyframes)
    assert closed.dtype == np.float32


@pytest.mark.parametrize("kind", PATHS)
def test_a_frame_has_the_same_bits_alone_and_among_others(kind: str) -> None:
    keyframes = z_from_seeds(range(5), 7 * 33).reshape(5, 7, 33)
    at = positions(5, 41, closed=True, easing="in_out_sine")
    together = INTERPOLATIONS[kind](keyframes, at)
    for frame in range(41):
        alone = Positions(at.segments[frame : frame + 1], at.fractions[frame : frame + 1], at.closed)
        np.testing.assert_array_equal(INTERPOLATIONS[kind](keyframes, alone)[0], together[frame])


@pytest.mark.parametrize("kind", PATHS)
def test_a_loop_through_evenly_spread_keyframes_closes_with_a_step_like_all_others(kind: str) -> None:
    around = np.arange(6) * 2 * np.pi / 6
    keyframes = np.stack([np.cos(around), np.sin(around)], axis=1).astype(np.float32)
    steps = _steps(INTERPOLATIONS[kind](keyframes, positions(6, 60, closed=True)))
    # A cubic between points of a circle is not quite a circle, but as far from it in every segment.
    np.testing.assert_allclose(steps[-1], steps[9], rtol=1e-4)
    np.testing.assert_allclose(steps[-1], np.median(steps), rtol=0.01)


@pytest.mark.parametrize("kind", PATHS)
def test_a_loop_through_any_keyframes_closes_with_no_larger_step_than_it_makes_elsewhere(kind: str) -> None:
    steps = _steps(INTERPOLATIONS[kind](z_from_seeds(range(4), 128), positions(4, 48, closed=True)))
    assert steps[-1] <= steps[:-1].max()


def test_a_straight_line_is_one() -> None:
    first, second = z_from_seeds([1, 2], 8)
    frames = lerp(np.stack([first, second]), positions(2, 11, closed=False))
    np.testing.assert_allclose(frames, [first + i / 10 * (second - first) for i in range(11)], atol=1e-6)


def test_slerp_turns_evenly_and_keeps_the_length_of_equally_long_latents() -> None:
    keyframes = z_from_seeds([1, 2, 3], 64)
    keyframes *= 8 / np.linalg.norm(keyframes, axis=1, keepdims=True)
    frames = slerp(keyframes, positions(3, 300, closed=True)).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), 8, rtol=1e-6)
    angles = np.arccos(np.sum(frames * np.roll(frames, -1, axis=0), axis=1) / 64)
    np.testing.assert_allclose(angles[:100], angles[0], rtol=1e-3)


def test_slerp_is_the_textbook_formula_where_that_can_be_evaluated() -> None:
    first, second = z_from_seeds([1, 2], 32).astype(np.float64)
    frames = slerp(np.stack([first, second]).astype(np.float32), positions(2, 9, closed=False))
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    a, b = first / lengths[0], second / lengths[1]
    omega = np.arccos(a @ b)
    for frame, t in zip(frames, np.linspace(0, 1, 9), strict=True):
        direction = (np.sin((1 - t) * omega) * a + np.sin(t * omega) * b) / np.sin(omega)
        np.testing.assert_allclose(frame, ((1 - t) * lengths[0] + t * lengths[1]) * direction, rtol=1e-5, atol=1e-6)


def test_slerp_lets_the_length_change_evenly() -> None:
    keyframes = np.array([[2, 0, 0], [0, 6, 0]], dtype=np.float32)
    frames = slerp(keyframes, positions(2, 5, closed=False))
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), [2, 3, 4, 5, 6], rtol=1e-6)


def test_slerp_between_a_latent_and_itself_stays() -> None:
    z = z_from_seeds([7], 16)
    np.testing.assert_allclose(slerp(np.repeat(z, 2, axis=0), positions(2, 9, closed=True)), np.repeat(z, 9, axis=0))


def test_slerp_between_opposite_latents_goes_half_round_at_one_length() -> None:
    z = z_from_seeds([7], 16)
    frames = slerp(np.concatenate([z, -z]), positions(2, 9, closed=False)).astype(np.float64)
    length = np.linalg.norm(z)
    np.testing.assert_allclose(np.linalg.norm(frames, axis=1), length, rtol=1e-6)
    cosines = frames @ z[0].astype(np.float64) / length**2
    np.testing.assert_allclose(cosines, np.cos(np.linspace(0, np.pi, 9)), atol=1e-6)


def test_slerp_from_and_to_the_origin_is_a_straight_line() -> None:
    z = z_from_seeds([7], 16)
    frames = slerp(np.concatenate([np.zeros_like(z), z, np.zeros_like(z)]), positions(3, 9, closed=False))
    parts = np.array([0, 1, 2, 3, 4, 3, 2, 1, 0]) / 4
    np.testing.assert_allclose(frames, parts[:, None] * z, rtol=1e-6)
    nothing = slerp(np.zeros((2, 3), dtype=np.float32), positions(2, 4, closed=True))
    np.testing.assert_array_equal(nothing, np.zeros((4, 3)))


def test_slerp_of_w_turns_every_layer_by_itself() -> None:
    w = z_from_seeds(range(3), 4 * 8).reshape(3, 4, 8)
    at = positions(3, 10, closed=True)
    for layer in range(4):
        np.testing.assert_array_equal(slerp(w, at)[:, layer], slerp(w[:, layer], at))


def _second_differences(keyframes: np.ndarray, closed: bool, fine: int) -> np.ndarray:
    """The acceleration along a spline, keyframes a second, by differences of positions in float64."""
    sections = len(keyframes) if closed else len(keyframes) - 1
    at = positions(len(keyframes), sections * fine + (0 if closed else 1), closed=closed)
    path = spline(keyframes, at).astype(np.float64)
    if closed:
        path = np.concatenate([path[-1:], path, path[:1]])
    return (path[2:] - 2 * path[1:-1] + path[:-2]) * fine**2


@pytest.mark.parametrize("closed", [True, False])
def test_a_spline_has_no_jump_in_speed_or_acceleration(closed: bool) -> None:
    keyframes = (z_from_seeds(range(5), 3) * 100).astype(np.float32)
    acceleration = _second_differences(keyframes, closed, fine=100)
    jumps = np.abs(np.diff(acceleration, axis=0)).max()
    # Linear between keyframes: from frame to frame it changes by a hundredth of what it changes in a second.
    assert jumps < 0.06 * np.abs(acceleration).max()


def test_a_natural_spline_is_the_one_of_a_textbook() -> None:
    # Through 0, 1, 0 at times 0, 1, 2: f(t) = 3/2 t - 1/2 t^3 up to the middle, and its mirror image.
    frames = spline(np.array([[0], [1], [0]], dtype=np.float32), positions(3, 9, closed=False))[:, 0]
    times = np.arange(5) / 4
    rising = 1.5 * times - 0.5 * times**3
    np.testing.assert_allclose(frames, [*rising, *rising[-2::-1]], atol=1e-6)


def test_a_periodic_spline_solves_the_periodic_system() -> None:
    keyframes = z_from_seeds(range(6), 4)
    eye = np.eye(6)
    system = 4 * eye + np.roll(eye, 1, axis=1) + np.roll(eye, -1, axis=1)
    wanted = 3 * (np.roll(keyframes, -1, axis=0) - np.roll(keyframes, 1, axis=0)).astype(np.float64)
    speeds = np.linalg.solve(system, wanted)
    step = 1e-3
    at = Positions(np.arange(6), np.full(6, step), True)
    moved = (spline(keyframes, at).astype(np.float64) - keyframes) / step
    np.testing.assert_allclose(moved, speeds, atol=0.02)
