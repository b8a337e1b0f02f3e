"""256 colours for a whole film, and which of them a pixel gets.

Between two colours of the palette a pixel gets the one or the other by its place, in a fixed pattern: gradients have no
steps, colours of the palette stay flat, and what does not move does not flicker, as it would with errors handed on from
pixel to pixel.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.serving.encode import Pixels

COLOURS: Final = 256
SAMPLED_FRAMES: Final = 32
SAMPLED_PIXELS: Final = 2048  # of each of them
REFINEMENTS: Final = 1  # of k-means: a second one finds nothing better
BITS: Final = 6  # of each channel, that decide: finer than the palette is
CELLS: Final = 1 << 3 * BITS
CELLS_AT_ONCE: Final = 512  # 512 kB for every number that is kept of each with each colour: a processor's cache
RESTLESSNESS: Final = 0.25  # how much variance of a pattern counts beside an error of its mean; 1: no patterns


def _bayer(doublings: int) -> NDArray[np.float32]:
    """Thresholds in (0, 1), [2^n, 2^n], each as far as can be from its like. Bayer, 1973."""
    order = np.zeros((1, 1), dtype=np.float32)
    for _ in range(doublings):
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    return (order + np.float32(0.5)) / np.float32(order.size)


THRESHOLDS: Final = _bayer(3)


class Sampler:
    """Pixels from all over a film of unknown length: of every frame, then of every second, fourth ..."""

    def __init__(self) -> None:
        self._samples: list[Pixels] = []
        self._every = 1
        self._frames = 0
        self._places: NDArray[np.intp] | None = None

    def add(self, pixels: Pixels) -> None:
        """See a frame, [H, W, 3]."""
        flat = pixels.reshape(-1, 3)
        if self._places is None:  # by chance: regular steps would fall into few columns
            self._places = np.random.RandomState(0).randint(len(flat), size=SAMPLED_PIXELS).astype(np.intp)
        if self._frames % self._every == 0:
            if len(self._samples) == SAMPLED_FRAMES:
                self._samples = self._samples[::2]
                self._every *= 2
            if self._frames % self._every == 0:
                self._samples.append(flat[self._places])
        self._frames += 1

    def palette(self) -> Pixels:
        """The colours that serve the sample best, [256, 3]."""
        image = Image.fromarray(np.stack(self._samples))  # a row a frame
        few = image.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=REFINEMENTS)
        colours = np.zeros((COLOURS, 3), dtype=np.uint8)
        found = few.getpalette() or []
        colours.reshape(-1)[: len(found)] = found
        return colours


class Painter:
    """Frames to places in a palette; what it finds out about a colour it keeps."""

    def __init__(self, palette: Pixels) -> None:
        """palette: [256, 3]."""
        self._palette = palette.astype(np.float32)
        self._apart = _squared_distances(self._palette, self._palette)
        self._known = np.zeros(CELLS, dtype=bool)
        self._first = np.zeros(CELLS, dtype=np.uint8)
        self._second = np.zeros(CELLS, dtype=np.uint8)
        self._share = np.zeros(CELLS, dtype=np.float32)  # of the second colour, 0 to 0.5

    def __call__(self, pixels: Pixels) -> NDArray[np.uint8]:
        """Places in the palette, [H, W], of a frame [H, W, 3]."""
        coarse = (pixels >> (8 - BITS)).astype(np.intp)
        cells = (coarse[:, :, 0] << 2 * BITS) | (coarse[:, :, 1] << BITS) | coarse[:, :, 2]
        met = np.zeros(CELLS, dtype=bool)
        met[cells] = True
        new = np.flatnonzero(met & ~self._known)
        for start in range(0, len(new), CELLS_AT_ONCE):
            self._learn(new[start : start + CELLS_AT_ONCE])
        height, width = cells.shape
        side = len(THRESHOLDS)
        thresholds = np.tile(THRESHOLDS, (-(-height // side), -(-width // side)))[:height, :width]
        places: NDArray[np.uint8] = np.where(self._share[cells] > thresholds, self._second[cells], self._first[cells])
        return places

    def _learn(self, cells: NDArray[np.intp]) -> None:
        """The nearest colour of some cells, and the one that comes closest when it is mixed in, with its share.

        With c between a and b at share t, the mean misses by |c - a - t(b - a)|^2 and the pattern varies by
        t(1 - t)|b - a|^2.
        """
        top = (1 << BITS) - 1
        colours = np.stack([cells >> 2 * BITS, cells >> BITS & top, cells & top], axis=1) * np.float32(255 / top)
        away = _squared_distances(colours, self._palette)
        first = away.argmin(axis=1)
        apart = self._apart[first]  # [N, 256], squared
        along = (away.min(axis=1, keepdims=True) - away + apart) / 2  # (c - a)(b - a)
        share = np.clip(along / np.maximum(apart, 1), 0, 0.5)
        cost = share * (apart * (RESTLESSNESS + (1 - RESTLESSNESS) * share) - 2 * along)  # beside that of a alone
        second = cost.argmin(axis=1)
        self._known[cells] = True
        self._first[cells], self._second[cells] = first, second
        self._share[cells] = share[np.arange(len(cells)), second]


def _squared_distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3], [M, 3] -> [N, M]."""
    sums: NDArray[np.float32] = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)
    return sums - 2 * first @ second.T
