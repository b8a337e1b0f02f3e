"""Random pictures whose makings are known."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Discs = Callable[..., NDArray[np.uint8]]


def draw_discs(count: int, seed: int, *, colours: int = 8) -> NDArray[np.uint8]:
    """Discs of random size, place and one of a few colours, on white."""
    chance = np.random.RandomState(seed)
    palette = np.random.RandomState(0).randint(0, 200, (8, 3))
    rows, columns = np.mgrid[:32, :32]
    images = np.full((count, 32, 32, 3), 255, dtype=np.uint8)
    for image in images:
        radius, top, left = chance.uniform(4, 12), chance.uniform(8, 24), chance.uniform(8, 24)
        colour = palette[chance.randint(colours)] + chance.randint(-15, 40, 3)
        image[(rows - top) ** 2 + (columns - left) ** 2 < radius**2] = colour.clip(0, 255)
    return images


@pytest.fixture
def discs() -> Discs:
    """Draws discs."""
    return draw_discs
