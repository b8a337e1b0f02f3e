"""Sliced Wasserstein distance between two sets of pictures, by level of detail. Karras et al., arXiv:1710.10196, 5.

Small patches at each level of a Laplacian pyramid say how alike the sets' textures are at that size: the coarsest level
compares layout and large shapes, the finest compares edges and noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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
BATCH_PIXELS = 1 << 18  # pictures of one pass: few enough for a processor's cache and for a laptop's memory


class SlicedWasserstein(NamedTuple):
    """Distances x 1000, of each level by its side in pixels, and their mean; two halves of one set are not at 0."""

    levels: dict[int, float]
    mean: float


@dataclass(frozen=True)
class ProjectedReals:
    """Patches of real pictures along random directions, in order: what takes long and stays the same for any others."""

    shape: tuple[int, ...]  # [N, H, W, C] of the pictures
    seed: int
    directions: dict[int, Tensor]  # of each level by its side, [PATCH * PATCH * C, projections]
    ordered: dict[int, NDArray[np.float32]]  # [projections, N * PATCHES_PER_IMAGE], ascending

    @classmethod
    def of(cls, real: NDArray[np.uint8], seed: int = 0, projections: int = PROJECTIONS) -> "ProjectedReals":
        """From real pictures, uint8 [N, H, W, C], with chance from `seed`."""
        generator = torch.Generator().manual_seed(seed)
        length = PATCH * PATCH * real.shape[-1]
        directions = {
            side: functional.normalize(torch.randn(length, projections, generator=generator), dim=0)
            for side in _sides(real.shape[1])
        }
        return cls(real.shape, seed, directions, dict(_ordered(real, directions, generator)))

    def distance(self, others: NDArray[np.uint8]) -> SlicedWasserstein:
        """Mean over the directions of the 1-D Wasserstein distance, which sorting gives; as many others as reals."""
        if others.shape != self.shape:
            raise ValueError(
                f"The sets have shapes {self.shape} and {others.shape}; the distance takes sets of one size."
            )
        # A seed of their own: with the places of the reals' patches, a set would be at distance 0 from itself alone.
        ordered = _ordered(others, self.directions, torch.Generator().manual_seed(self.seed + 1))
        levels = {side: 1e3 * float(np.abs(level - self.ordered[side]).mean()) for side, level in ordered}
        return SlicedWasserstein(levels, sum(levels.values()) / len(levels))


def sliced_wasserstein(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0, projections: int = PROJECTIONS
) -> SlicedWasserstein:
    """Distance between two sets of as many pictures each, uint8 [N, H, W, C], with chance from `seed`."""
    return ProjectedReals.of(real, seed, projections).distance(fake)


def _ordered(
    images: NDArray[np.uint8], directions: dict[int, Tensor], generator: torch.Generator
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Random patches along the directions, sorted: the side of each level, finest first, and [projections, M]."""
    gathered: dict[int, list[Tensor]] = {side: [] for side in directions}
    for batch in _batches(images):
        for level in _pyramid(batch):
            gathered[level.shape[-1]].append(_patches(level, generator))
    for side, along in directions.items():
        patches = _normalise(torch.cat(gathered.pop(side)), channels=images.shape[-1])
        projected = (along.T @ patches.T).numpy()
        del patches  # a level's are 40 MB of 512 pictures
        projected.sort(axis=1)  # NumPy sorts with the processor's vector instructions, many times faster than torch
        yield side, projected


def _batches(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    """The pictures in order as floats, [n, C, H, W] with n * H * W at most BATCH_PIXELS."""
    size = max(1, BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):
        yield torch.from_numpy(np.ascontiguousarray(images[start : start + size])).permute(0, 3, 1, 2).float()


def _sides(resolution: int) -> list[int]:
    """Sides of the levels, finest first."""
    sides = [resolution]
    while sides[-1] > COARSEST:
        sides.append((sides[-1] + 1) // 2)
    return sides


def _pyramid(images: Tensor) -> list[Tensor]:
    """Pictures [N, C, H, W] to Laplacian levels [N, C, S, S], finest first; the coarsest is what remains, blurred."""
    current = images
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
    """Patches at random places of a level [N, C, H, W], as vectors [N * PATCHES_PER_IMAGE, PATCH * PATCH * C]."""
    count, channels, height, width = level.shape
    draws = (count, PATCHES_PER_IMAGE, 1)
    tops = torch.randint(height - PATCH + 1, draws, generator=generator)
    lefts = torch.randint(width - PATCH + 1, draws, generator=generator)
    rows = tops + torch.arange(PATCH)  # [N, PATCHES, PATCH]
    picture = torch.arange(count).view(count, 1, 1)
    # With the channels of a pixel side by side, a patch is PATCH stretches of memory: the quickest to gather.
    flat = level.permute(0, 2, 3, 1).flatten()
    starts = ((picture * height + rows) * width + lefts) * channels
    return flat.unfold(0, PATCH * channels, 1)[starts.flatten()].view(-1, PATCH * PATCH * channels)


def _normalise(patches: Tensor, channels: int) -> Tensor:
    """Each colour channel to mean 0 and deviation 1 over the set, in place; patches [M, PATCH * PATCH * C]."""
    var, mean = (x.view(-1, channels) for x in torch.var_mean(patches, dim=0, correction=0))  # a place of the patch
    centre = mean.mean(dim=0)
    deviation = (var + (mean - centre).square()).mean(dim=0).sqrt().clamp_min(1e-8)  # a flat channel stays flat
    places = PATCH * PATCH
    return patches.sub_(centre.repeat(places)).div_(deviation.repeat(places))
