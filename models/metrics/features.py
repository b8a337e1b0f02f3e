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
DIMENSIONS = 64
# Linear sRGB to XYZ relative to the D65 white point (IEC 61966-2-1); each row sums to 1.
RGB_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)


class FeatureSpace(NamedTuple):
    """Coordinates in which a set of real pictures is spread out: `fit` finds them, `project` puts pictures there."""

    mean: Tensor  # [F]
    scale: Tensor  # [F]
    directions: Tensor  # [F, DIMENSIONS or fewer], orthonormal

    @classmethod
    def fit(cls, real: NDArray[np.uint8]) -> "FeatureSpace":
        """From real pictures, uint8 [N, H, W, 3 or 1]: each kind of feature to unit total variance, then PCA."""
        blocks = _blocks(real)
        features = torch.cat(blocks, dim=1)
        scales = [
            block.var(dim=0, correction=0).sum().sqrt().clamp_min(1e-8).expand(block.shape[1]) for block in blocks
        ]
        mean, scale = features.mean(dim=0), torch.cat(scales)
        _, _, directions = torch.linalg.svd((features - mean) / scale, full_matrices=False)  # [min(N, F), F]
        return cls(mean, scale, directions[:DIMENSIONS].T)

    def project(self, images: NDArray[np.uint8]) -> Tensor:
        """Pictures uint8 [N, H, W, C] -> [N, DIMENSIONS or fewer]."""
        return (torch.cat(_blocks(images), dim=1) - self.mean) / self.scale @ self.directions


def _blocks(images: NDArray[np.uint8]) -> list[Tensor]:
    """The three kinds of features, each [N, F]."""
    lab = srgb_to_lab(torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255)
    layout = functional.adaptive_avg_pool2d(lab, GRID).flatten(1)
    return [layout, _colour_histogram(lab), _edge_histogram(lab[:, 0])]


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
    """Share of the pixels in each of BINS^3 boxes of Lab, [N, BINS^3]."""
    low, high = torch.tensor([0.0, -100.0, -100.0]), torch.tensor([100.0, 100.0, 100.0])
    unit = (lab - low.view(3, 1, 1)) / (high - low).view(3, 1, 1)
    bins = (unit * BINS).long().clamp(0, BINS - 1)
    box = ((bins[:, 0] * BINS + bins[:, 1]) * BINS + bins[:, 2]).flatten(1)  # [N, H * W]
    counts = torch.zeros(len(lab), BINS**3).scatter_add_(1, box, torch.ones(box.shape))
    return counts / box.shape[1]


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
