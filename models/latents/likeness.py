"""How alike pictures are: structural similarity, and the difference of their colours and edges at several sizes.

Comparisons take a `Sight`, the pictures with what every comparison needs of each of them: a target is looked at once
and compared with hundreds of pictures. Pictures whose numbers differ only in N broadcast: one against many.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

WINDOW, SIGMA = 11, 1.5  # pixels: of the Gaussian windows in Wang et al., 3.2
RANGE = 2.0  # from black, -1, to white, 1
MEAN_FLOOR, SPREAD_FLOOR = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2  # keep the ratios finite; Wang et al., eq. 7 and 9
SIZES = 4  # at which colours are compared: the picture's own side, a half, a quarter and an eighth of it


class Sight(NamedTuple):
    """Pictures [N, C, S, S] in [-1, 1], each of its sizes, and what lies in each window of the first."""

    sizes: tuple[Tensor, ...]  # [N, C, S, S], [N, C, S/2, S/2] ...
    mean: Tensor  # [N, C, S - 10, S - 10]
    variance: Tensor  # [N, C, S - 10, S - 10]


def look(x: Tensor) -> Sight:
    """The sight of pictures x [N, C, S, S] in [-1, 1]; S at least 11, and a multiple of 8."""
    sizes = [x]
    while len(sizes) < SIZES:
        sizes.append(functional.avg_pool2d(sizes[-1], 2))
    mean = _window_means(x)
    return Sight(tuple(sizes), mean, _window_means(x * x) - mean.square())


def similarity(a: Sight, b: Sight) -> Tensor:
    """SSIM, [N]: the mean over all windows and channels; 1 for equal pictures, about 0 for unrelated ones.

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004, eq. 13.
    """
    covariance = _window_means(a.sizes[0] * b.sizes[0]) - a.mean * b.mean
    means = (2 * a.mean * b.mean + MEAN_FLOOR) / (a.mean.square() + b.mean.square() + MEAN_FLOOR)
    spreads = (2 * covariance + SPREAD_FLOOR) / (a.variance + b.variance + SPREAD_FLOOR)
    return (means * spreads).mean(dim=(1, 2, 3))


def error(a: Sight, b: Sight) -> Tensor:
    """Multi-scale error, [N]: how far colours are apart, as a part of the way from black to white; the mean of that at
    each size. The coarse sizes see where shapes lie, which pixel by pixel is lost where edges miss each other."""
    distances = [(x - y).abs().mean(dim=(1, 2, 3)) for x, y in zip(a.sizes, b.sizes, strict=True)]
    return torch.stack(distances).mean(dim=0) / RANGE


def edge_error(a: Sight, b: Sight) -> Tensor:
    """How far the steps between neighbouring pixels are apart, [N], as a part of the way from black to white."""
    difference = a.sizes[0] - b.sizes[0]
    steps = [difference.diff(dim=dim).abs().mean(dim=(1, 2, 3)) for dim in (2, 3)]
    return torch.stack(steps).mean(dim=0) / RANGE


def _window_means(x: Tensor) -> Tensor:
    """Weighted means of all windows that lie within x: [N, C, S, S] -> [N, C, S - 10, S - 10].

    A window's weights are those of its rows times those of its columns: two products with a banded matrix, which CPUs
    calculate many times faster than a convolution of single channels.
    """
    side = x.shape[-1]
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.softmax(-offsets.square() / (2 * SIGMA**2), dim=0)
    starts = torch.arange(side - WINDOW + 1, device=x.device)[:, None]
    places = starts + torch.arange(WINDOW, device=x.device)  # [S - 10, 11]
    band = x.new_zeros(len(starts), side).scatter_(1, places, weights.expand(len(starts), -1))
    return band @ x @ band.T
