"""Paths through latent space: from keyframe to keyframe, open, or closed to a loop.

All in float64 and element by element, with no matrix product, so that a frame has the same bits whether it is worked
out alone or with all others.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError
from models.latents.easing import EASINGS

Numbers = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Positions(NamedTuple):
    """Where each of N frames is: between keyframe `segments` and the next one, which is the first after the last."""

    segments: NDArray[np.int64]  # [N]
    fractions: Doubles  # [N], 0 to 1: the part of the segment that lies behind
    closed: bool


def positions(keyframes: int, frames: int, *, closed: bool, easing: str = "linear") -> Positions:
    """Where `frames` frames are on a path past `keyframes` keyframes, which takes as long between any two.

    Closed: frame i is i/frames of the way round, so that the first would follow the last, and is not repeated.
    Open: it begins with the first keyframe and ends with the last. Raises ModelsError for an unknown easing.
    """
    if easing not in EASINGS:
        raise ModelsError(f"There is no easing {easing!r}; there are {', '.join(EASINGS)}.")
    if keyframes < 1 or frames < 1:
        raise ModelsError(f"{frames} frames past {keyframes} keyframes: a path has one of each at least.")
    sections = keyframes if closed else keyframes - 1
    steps = frames if closed else max(frames - 1, 1)
    passed = [min(frame * sections // steps, max(sections - 1, 0)) for frame in range(frames)]
    ease = EASINGS[easing]
    fractions = [ease((frame * sections - segment * steps) / steps) for frame, segment in enumerate(passed)]
    return Positions(np.array(passed, dtype=np.int64), np.array(fractions, dtype=np.float64), closed)


def lerp(keyframes: Numbers, at: Positions) -> Numbers:
    """Straight lines: keyframes [K, ...] -> [N, ...]."""
    first, second, t = _ends(keyframes.astype(np.float64), at)
    return ((1 - t) * first + t * second).astype(np.float32)


def slerp(keyframes: Numbers, at: Positions) -> Numbers:
    """Great circles: the direction turns at one speed while the length changes evenly, keyframes [K, ..., D] ->
    [N, ..., D]; between keyframes of one length every frame has it. Shoemake, Animating rotation with quaternion
    curves, 1985.

    Opposite keyframes have no shortest way: it then leads over the axis that the first is farthest from.
    """
    exact = keyframes.astype(np.float64)
    lengths, following = _length(exact), np.roll(exact, -1, axis=0)
    # A latent of length 0 has no direction, and takes that of the other end.
    start = _direction(np.where(lengths > 0, exact, following))
    end = _direction(np.where(_length(following) > 0, following, exact))
    # From half the angle (Kahan), for the arc cosine of a product is inexact near 0 and near 180 degrees.
    angle = 2 * np.arctan2(_length(end - start), _length(end + start))
    first, second, t = _ends(exact, at)
    first_length, second_length, _ = _ends(lengths, at)
    turn = t * angle[at.segments]
    direction = np.cos(turn) * start[at.segments] + np.sin(turn) * _aside(start, end)[at.segments]
    between = ((1 - t) * first_length + t * second_length) * direction
    # What was rounded at the ends is undone: a path passes its keyframes themselves.
    return np.where(t == 0, first, np.where(t == 1, second, between)).astype(np.float32)


def spline(keyframes: Numbers, at: Positions) -> Numbers:
    """The cubic spline, keyframes [K, ...] -> [N, ...]: through every keyframe, with no jump in speed or acceleration
    there; periodic on a closed path, and without curvature at the ends of an open one (natural). de Boor, A Practical
    Guide to Splines, 1978, chapter IV. Keyframes are as far apart in time, however far in space.
    """
    exact = keyframes.astype(np.float64)
    first, second, t = _ends(exact, at)
    speeds = _speeds(exact, at.closed)  # [K, ...], a segment
    leaving, arriving, _ = _ends(speeds, at)
    # Hermite's form: positions and speeds of both ends.
    rest = 1 - t
    bend = rest * (leaving - (second - first)) - t * (arriving - (second - first))
    return (rest * first + t * second + t * rest * bend).astype(np.float32)


INTERPOLATIONS: Final[dict[str, Callable[[Numbers, Positions], Numbers]]] = {
    "linear": lerp,
    "slerp": slerp,
    "spline": spline,
}


def _ends(points: Doubles, at: Positions) -> tuple[Doubles, Doubles, Doubles]:
    """What each frame lies between, [N, ...] each, and its part of the way, [N, 1, ...]."""
    behind = at.segments
    ahead = (behind + 1) % len(points)
    return points[behind], points[ahead], at.fractions.reshape(-1, *(1,) * (points.ndim - 1))


def _length(x: Doubles) -> Doubles:
    """[..., D] -> [..., 1]."""
    squares: Doubles = np.sum(x * x, axis=-1, keepdims=True)
    return np.sqrt(squares)


def _direction(x: Doubles) -> Doubles:
    """x [..., D] at length 1; 0 stays 0."""
    return x / np.maximum(_length(x), np.finfo(np.float64).tiny)


def _aside(start: Doubles, end: Doubles) -> Doubles:
    """The direction in which `end` lies as seen from `start`, at right angles to it; both [..., D] of length 1."""
    aside = end - np.sum(start * end, axis=-1, keepdims=True) * start
    axis = np.zeros_like(start)
    np.put_along_axis(axis, np.abs(start).argmin(axis=-1, keepdims=True), 1.0, axis=-1)
    any_aside = axis - np.sum(start * axis, axis=-1, keepdims=True) * start
    parallel = _length(aside) < 1e-12  # no more than rounding left of it
    return _direction(np.where(parallel, any_aside, aside))


def _speeds(points: Doubles, closed: bool) -> Doubles:
    """The cubic spline's first derivative at its knots [K, ...]: the tridiagonal system that makes the second
    derivative continuous, speeds[i - 1] + 4 speeds[i] + speeds[i + 1] = 3 (points[i + 1] - points[i - 1])."""
    if len(points) == 1:
        return np.zeros_like(points)
    wanted = 3 * (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))
    diagonal = np.full(len(points), 4.0)
    if not closed:
        wanted[0], wanted[-1] = 3 * (points[1] - points[0]), 3 * (points[-1] - points[-2])
        diagonal[[0, -1]] = 2
        return _solved(diagonal, wanted)
    if len(points) == 2:  # there and back: the neighbours on both sides are one
        return np.zeros_like(points)
    # The two corners of the periodic system are a product of rank 1 (Sherman and Morrison, 1950).
    diagonal[0] -= 1
    diagonal[-1] -= 1
    corners = np.zeros((len(points), *(1,) * (points.ndim - 1)))
    corners[[0, -1]] = 1
    speeds, of_corners = _solved(diagonal, wanted), _solved(diagonal, corners)
    speeds -= of_corners * (speeds[0] + speeds[-1]) / (1 + of_corners[0] + of_corners[-1])
    return speeds


def _solved(diagonal: Doubles, wanted: Doubles) -> Doubles:
    """x [K, ...] of a tridiagonal system with ones beside its diagonal [K] (Thomas, 1949)."""
    left, solved = diagonal.copy(), wanted.copy()
    for row in range(1, len(left)):
        left[row] -= 1 / left[row - 1]
        solved[row] -= solved[row - 1] / left[row - 1]
    solved[-1] /= left[-1]
    for row in range(len(left) - 2, -1, -1):
        solved[row] = (solved[row] - solved[row + 1]) / left[row]
    return solved
