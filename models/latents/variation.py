"""Variations of a picture: neighbours in w, and children of two parents."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelsError

if TYPE_CHECKING:
    from torch import Tensor

Latent = TypeVar("Latent", "NDArray[Any]", "Tensor")


def vary(w: Latent, center: Latent, w_other: Latent, strength: float) -> Latent:
    """A neighbour of w, [..., num_ws, w_dim]: center + cos(a) (w - center) + sin(a) (w_other - center), with
    a = strength * pi / 2.

    center: what w was truncated towards; w_other: an independent w of the same kind, truncated as w was. Strength 0 is
    w itself, to the last bit, and 1 the other one. The squares of both weights add up to 1, so neighbours are spread
    about the center as the pictures themselves.
    """
    angle = strength * math.pi / 2
    neighbour: Latent = w + (math.cos(angle) - 1) * (w - center) + math.sin(angle) * (w_other - center)
    return neighbour


class Crossing(NamedTuple):
    """How a child takes after two parents: first + amount * (second - first)."""

    amount: float
    layers: tuple[int, ...] | None  # that it says this of, the others being the first parent's; None: all


def crossing(seed: int, num_ws: int) -> Crossing:
    """How the child of that seed takes after its parents: between both in everything, or, as often where w has
    several layers, with a run of layers from the second."""
    if num_ws < 1:
        raise ModelsError(f"num_ws is {num_ws}; a picture has one layer of w at least.")
    chance = np.random.RandomState(seed)
    amount = round(float(chance.uniform(0.25, 0.75)), 4)  # a child that is nearly one of them is no child of two
    if num_ws == 1 or chance.uniform() < 0.5:
        return Crossing(amount, None)
    length = int(chance.randint(1, num_ws))
    start = int(chance.randint(0, num_ws - length + 1))
    return Crossing(1.0, tuple(range(start, start + length)))
