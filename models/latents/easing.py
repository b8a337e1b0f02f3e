"""Easing: how the time between two keyframes is spent. Penner, Programming Macromedia Flash MX, 2002, chapter 7."""

import math
from collections.abc import Callable
from typing import Final

Easing = Callable[[float], float]  # from 0..1 to 0..1, with 0 at 0 and 1 at 1
BOUNCES: Final = ((4 / 11, 0.0, 0.0), (8 / 11, 6 / 11, 3 / 4), (10 / 11, 9 / 11, 15 / 16), (1.0, 21 / 22, 63 / 64))


def linear(t: float) -> float:
    """At one speed."""
    return t


def in_sine(t: float) -> float:
    """Slow at first: a quarter of a sine wave."""
    return 1 - math.sin(math.pi / 2 * (1 - t))


def circular_in(t: float) -> float:
    """Slow for long, then ever faster: a quarter of a circle."""
    return 1 - math.sqrt(1 - t * t)


def bounce_out(t: float) -> float:
    """As a ball let fall: it is there at 4/11 of the time, and leaves again three times, each less far."""
    middle, floor = next((middle, floor) for until, middle, floor in BOUNCES if t <= until)
    return (11 / 4 * (t - middle)) ** 2 + floor


def power(exponent: int) -> Easing:
    """Slow at first: t to that exponent."""
    return lambda t: t**exponent


def out(slow_first: Easing) -> Easing:
    """The same, slow at last."""
    return lambda t: 1 - slow_first(1 - t)


def in_out(slow_first: Easing) -> Easing:
    """The same, slow at first and at last."""
    return lambda t: slow_first(2 * t) / 2 if t < 0.5 else 1 - slow_first(2 - 2 * t) / 2


EASINGS: Final[dict[str, Easing]] = {
    "linear": linear,
    "in_sine": in_sine,
    "out_sine": out(in_sine),
    "in_out_sine": in_out(in_sine),
    "in_quad": power(2),
    "out_quad": out(power(2)),
    "in_out_quad": in_out(power(2)),
    "in_cubic": power(3),
    "out_cubic": out(power(3)),
    "in_out_cubic": in_out(power(3)),
    "circular_in": circular_in,
    "circular_out": out(circular_in),
    "circular_in_out": in_out(circular_in),
    "bounce_out": bounce_out,
}
