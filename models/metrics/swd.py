"""Sliced Wasserstein distance between two sets of pictures, by level of detail. Karras et al., arXiv:1710.10196, 5.

Small patches at each level of a Laplacian pyramid say how alike the sets' textures are at that size: the coarsest level
compares layout and large shapes, the finest compares edges and noise.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

COARSEST = 16  # pixels
PATCH = 7  # pixels
PATCHES_PER_IMAGE = 128
PROJECTIONS = 512  # more make the distance less noisy, not larger or smaller
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)  # the 5-tap filter of a Laplacian pyramid (Burt and Adelson, 1983)


class SlicedWasserstein(NamedTuple):
    """Distances x 1000, of each level by its side in pixels, and their mean; two halves of one set are not at 0."""

    levels: dict[int, float]
    mean: float


def sliced_wasserstein(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0, projections: int = PROJECTIONS
) -> SlicedWasserstein:
    """Distance between two sets of as many pictures each, uint8 [N, H, W, C], with chance from `seed`."""
    if real.shape != fake.shape:
        raise ValueError(f"The sets have shapes {real.shape} and {fake.shape}; the distance takes sets of one size.")
    generator = torch.Generator().manual_seed(seed)
    levels = {}
    for a, b in zip(_pyramid(real), _pyramid(fake), strict=True):
        patches = [_normalise(_patches(level, generator)) for level in (a, b)]
        levels[a.shape[-1]] = 1e3 * _sliced_distance(patches[0], patches[1], projections, generator)
    return SlicedWasserstein(levels, sum(levels.values()) / len(levels))


def _pyramid(images: NDArray[np.uint8]) -> list[Tensor]:
    """Laplacian levels [N, C, S, S], finest first; the coarsest is what remains, blurred."""
    current = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    levels = []
    while current.shape[-1] > COARSEST:
        smaller = _blur(current)[:, :, ::2, ::2]
        doubled = torch.zeros_like(current)
        doubled[:, :, ::2, ::2] = smaller
        levels.append(current - 4 * _blur(doubled))
        current = smaller
    return [*levels, current]


def _blur(images: Tensor) -> Tensor:
    """The 5-tap filter along both axes, as sums of shifted pictures: quicker than a convolution of single channels."""
    for axis in (2, 3):
        side = images.shape[axis]
        padding = (0, 0, 2, 2) if axis == 2 else (2, 2, 0, 0)
        padded = functional.pad(images, padding, mode="reflect")
        taps = enumerate(BINOMIAL)
        images = sum((padded.narrow(axis, tap, side) * (weight / 16) for tap, weight in taps), torch.zeros(()))
    return images


def _patches(level: Tensor, generator: torch.Generator) -> Tensor:
    """Patches at random places, [N * PATCHES_PER_IMAGE, C, PATCH, PATCH]."""
    count, _, height, width = level.shape
    draws = (count, PATCHES_PER_IMAGE, 1, 1)
    tops = torch.randint(height - PATCH + 1, draws, generator=generator)
    lefts = torch.randint(width - PATCH + 1, draws, generator=generator)
    offsets = torch.arange(PATCH)
    rows, columns = tops + offsets[:, None], lefts + offsets  # [N, PATCHES, PATCH, 1], [N, PATCHES, 1, PATCH]
    picture = torch.arange(count).view(count, 1, 1, 1)
    return level.permute(0, 2, 3, 1)[picture, rows, columns].flatten(0, 1).permute(0, 3, 1, 2)


def _normalise(patches: Tensor) -> Tensor:
    """Each colour channel to mean 0 and deviation 1 over the set, as vectors [M, C * PATCH * PATCH]."""
    mean = patches.mean(dim=(0, 2, 3), keepdim=True)
    deviation = patches.std(dim=(0, 2, 3), keepdim=True, correction=0)
    return ((patches - mean) / deviation.clamp_min(1e-8)).flatten(1)  # a flat channel stays flat


def _sliced_distance(a: Tensor, b: Tensor, projections: int, generator: torch.Generator) -> float:
    """Mean over random directions of the 1-D Wasserstein distance, which sorting gives."""
    directions = functional.normalize(torch.randn(a.shape[1], projections, generator=generator), dim=0)
    # NumPy sorts with the processor's vector instructions, many times faster than torch.
    projected = [np.sort((directions.T @ patches.T).numpy(), axis=1) for patches in (a, b)]  # [projections, M]
    return float(np.abs(projected[0] - projected[1]).mean())
