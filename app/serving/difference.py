"""How pictures differ, pixel by pixel, one after the other."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.serving.encode import Pixels

OPAQUE: Final = 255


@dataclass(frozen=True)
class Difference:
    """How a file differs from what its recipe gives; of what is not known, nothing is said."""

    reason: str
    size: tuple[int, int] | None = None  # of the file, where it is not the recipe's; the rest is None then
    frames: int | None = None  # of a film, or pictures of a zip, that differ
    first: int | None = None  # frame that differs, from 0
    altered: tuple[str, ...] | None = None  # of a zip: the first names of pictures that differ
    missing: tuple[str, ...] | None = None
    added: tuple[str, ...] | None = None
    pixels: int | None = None  # that differ in any channel
    share: float | None = None  # of all pixels
    max: int | None = None  # levels, of 255
    mean: float | None = None  # levels, over all channels of all pixels


class Tally:
    """Counts what differs in pairs of pictures."""

    def __init__(self) -> None:
        self.pictures = 0  # that were compared
        self.differing: list[int] = []  # numbers of those that differ, from 0
        self._changed = self._pixels = self._max = self._levels = self._values = 0

    def add(self, found: Pixels, expected: Pixels) -> None:
        """Compare two of one size, [H, W, 3], or [H, W, 4] where some of one is transparent."""
        if found.shape[2] != expected.shape[2]:
            found, expected = _with_alpha(found), _with_alpha(expected)
        levels = np.maximum(found, expected) - np.minimum(found, expected)
        changed = int(levels.any(axis=2).sum())
        if changed:
            self.differing.append(self.pictures)
        self.pictures += 1
        self._changed += changed
        self._pixels += levels.shape[0] * levels.shape[1]
        self._max = max(self._max, int(levels.max()))
        self._levels += int(levels.sum())
        self._values += levels.size

    def difference(self, reason: str, *, film: bool = False) -> Difference | None:
        """What was counted, in all pictures together, with what may have made it; None where no pixel differs."""
        if not self.differing:
            return None
        return Difference(
            reason,
            frames=len(self.differing) if film else None,
            first=self.differing[0] if film else None,
            pixels=self._changed,
            share=self._changed / self._pixels,
            max=self._max,
            mean=self._levels / self._values,
        )


def opaque(pixels: Pixels) -> Pixels:
    """A picture of 1 to 4 channels as decoders give it: [H, W, 3], or [H, W, 4] where some of it is transparent."""
    channels = pixels.shape[2]
    colours = np.repeat(pixels[:, :, :1], 3, axis=2) if channels < 3 else pixels[:, :, :3]
    if channels in (1, 3) or bool((pixels[:, :, -1] == OPAQUE).all()):
        return colours
    return np.dstack([colours, pixels[:, :, -1]])


def _with_alpha(pixels: Pixels) -> Pixels:
    if pixels.shape[2] == 4:
        return pixels
    return np.dstack([pixels, np.full(pixels.shape[:2], OPAQUE, np.uint8)])
