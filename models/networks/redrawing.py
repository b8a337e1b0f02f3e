"""Self-supervision: a picture redrawn from a critic's features, and how much the two differ."""

from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.dcgan import initialise
from models.networks.layers import ResizeConv

NARROWEST = 16  # feature maps a decoder keeps at least
WINDOW = 7  # pixels a side of the neighbourhoods that SSIM compares
# What keeps SSIM's ratios finite: (0.01 * range)^2 and (0.03 * range)^2, of pixels between -1 and 1.
MEAN_FLOOR, SPREAD_FLOOR = 0.02**2, 0.06**2


class Redrawer(nn.Module):
    """Features [N, inputs, S, S] -> a picture [N, channels, side, side] in [-1, 1]. Liu et al., arXiv:2101.04775, 3.2.

    Batch normalised whatever the critic is: only real pictures' own loss passes here, and no gradient penalty.
    """

    def __init__(self, inputs: int, features_side: int, side: int, channels: int) -> None:
        super().__init__()
        doublings = int(log2(side // features_side))
        widths = [inputs, *(max(NARROWEST, inputs // 4 >> doubling) for doubling in range(doublings))]
        layers: list[nn.Module] = []
        for narrow, width in pairwise(widths):
            layers += [ResizeConv(narrow, 2 * width), nn.BatchNorm2d(2 * width), nn.GLU(dim=1)]
        self.layers = nn.Sequential(*layers)
        self.paint = nn.Conv2d(widths[-1], channels, 3, padding=1)
        initialise(self)

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.paint(self.layers(features)).to(self.paint.weight.dtype))


def redraw_error(redrawn: Tensor, images: Tensor) -> Tensor:
    """L1 + 1 - SSIM, [], both [N, C, S, S] in [-1, 1]: what LPIPS is for in the paper, without downloaded weights."""
    with torch.autocast(images.device.type, enabled=False):
        return (redrawn - images).abs().mean() + 1 - structural_similarity(redrawn, images)


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of pictures [N, C, S, S] in [-1, 1], its mean over all 7x7 windows, []; 1 where they are the same.

    Wang et al., Image quality assessment: from error visibility to structural similarity, 2004, eq. 13, with windows
    of equal weights.
    """
    mean_x, mean_y = _mean(x), _mean(y)
    variance_x = _mean(x * x) - mean_x.square()
    variance_y = _mean(y * y) - mean_y.square()
    covariance = _mean(x * y) - mean_x * mean_y
    means = (2 * mean_x * mean_y + MEAN_FLOOR) / (mean_x.square() + mean_y.square() + MEAN_FLOOR)
    spreads = (2 * covariance + SPREAD_FLOOR) / (variance_x + variance_y + SPREAD_FLOOR)
    return (means * spreads).mean()


def _mean(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, WINDOW, stride=1)
