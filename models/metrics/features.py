"""Classic features of a picture: where which colours are, how much of each, and which way the edges run.

Enough to compare sets of pictures without downloading a network trained on somebody else's photographs.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

GRID = 8  # cells a side of the colour layout
BINS = 4  # bins a Lab axis of the colour histogram
EDGE_CELLS = 4  # cells a side of the edge histogram
ORIENTATIONS = 8  # directions of edges, over half a turn
LARGEST = 64  # pixels a side: larger pictures are averaged down, as finer detail is for the sliced distance to judge
BATCH_PIXELS = 1 << 18  # pictures of one pass: few enough for a processor's cache and for a laptop's memory
# Linear sRGB to XYZ relative to the D65 white point (IEC 61966-2-1); each row sums to 1.
RGB_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)


class FeatureSpace(NamedTuple):
    """Features as the real pictures measure them: `fit` finds their middle and spread, `project` puts pictures there.

    All of the features: principal components of some hundred pictures lay those apart, and every other picture near.
    """

    mean: Tensor  # [F]
    scale: Tensor  # [F]

    @classmethod
    def fit(cls, real: NDArray[np.uint8]) -> "FeatureSpace":
        """From real pictures, uint8 [N, H, W, 3 or 1]: the kinds weigh the same, and the mean variance is 1."""
        scales, means = [], []
        for block in _blocks(real):
            variance, mean = torch.var_mean(block, dim=0, correction=0)
            means.append(mean)
            scales.append(variance.sum().sqrt().clamp_min(1e-8).expand(len(mean)))
        scale = torch.cat(scales)
        return cls(torch.cat(means), scale * (len(scales) / len(scale)) ** 0.5)

    def project(self, images: NDArray[np.uint8], rows: NDArray[np.intp] | None = None) -> Tensor:
        """Pictures uint8 [N, H, W, C], or those at `rows` alone, -> [N, F]."""
        return (torch.cat(_blocks(images, rows), dim=1) - self.mean) / self.scale


def _blocks(images: NDArray[np.uint8], rows: NDArray[np.intp] | None = None) -> list[Tensor]:
    """The three kinds of features, each [N, F]; of a memory-mapped file, a few pictures are read at a time."""
    rows = np.arange(len(images)) if rows is None else rows
    size = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    batches = [_blocks_of_batch(images[rows[start : start + size]]) for start in range(0, len(rows), size)]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def _blocks_of_batch(images: NDArray[np.uint8]) -> tuple[Tensor, Tensor, Tensor]:
    rgb = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    if max(rgb.shape[2:]) > LARGEST:
        rgb = functional.adaptive_avg_pool2d(rgb, LARGEST)
    lab = srgb_to_lab(rgb)
    layout = functional.adaptive_avg_pool2d(lab, GRID).flatten(1)
    return layout, _colour_histogram(lab), _edge_histogram(lab[:, 0])


def srgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB [N, 3 or 1, H, W] in [0, 1] -> CIE 1976 L*a*b* for D65, [N, 3, H, W]."""
    rgb = rgb.expand(-1, 3, -1, -1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,njhw->nihw", torch.tensor(RGB_TO_XYZ), linear)
    delta = 6 / 29
    f = torch.where(xyz > delta**3, xyz.clamp_min(1e-8) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _colour_histogram(lab: Tensor) -> Tensor:
    """Share of the pixels in each of BINS^3 boxes of Lab, [N, BINS^3].

    A pixel counts in the boxes around it by its nearness to their centres: greys lie on the border of boxes, and would
    change the box with the faintest tint.
    """
    low, high = torch.tensor([0.0, -100.0, -100.0]), torch.tensor([100.0, 100.0, 100.0])
    place = (lab - low.view(3, 1, 1)) / (high - low).view(3, 1, 1) * BINS - 0.5  # 0: centre of the first box
    place = place.clamp(0, BINS - 1).flatten(2)[:, :, None]  # [N, 3, 1, H * W]
    light, green_red, blue_yellow = (1 - (place - torch.arange(BINS).view(-1, 1)).abs()).clamp_min(0).unbind(dim=1)
    pairs = (light[:, :, None] * green_red[:, None]).flatten(1, 2)  # [N, BINS^2, H * W]
    return (pairs @ blue_yellow.transpose(1, 2)).flatten(1) / place.shape[-1]


def _edge_histogram(lightness: Tensor) -> Tensor:
    """Gradient magnitude by direction in each cell, normalised a picture (Dalal and Triggs, 2005), [N, F]."""
    padded = functional.pad(lightness[:, None], (1, 1, 1, 1), mode="replicate")
    horizontal = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    vertical = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    magnitude = torch.hypot(horizontal, vertical)  # [N, 1, H, W]
    turn = torch.atan2(vertical, horizontal) / torch.pi % 1  # edges have a direction, not a sense: half a turn is one
    direction = (turn * ORIENTATIONS).round().long() % ORIENTATIONS
    by_direction = magnitude.expand(-1, ORIENTATIONS, -1, -1) * (direction == torch.arange(ORIENTATIONS).view(-1, 1, 1))
    return functional.normalize(functional.adaptive_avg_pool2d(by_direction, EDGE_CELLS).flatten(1), dim=1)
