"""Building blocks the networks share."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2  # slope of LeakyReLU below zero, in every network here (arXiv:1511.06434)
FIRST_STD = 0.02  # spread of the first weights in the paper

# Row i: which of 4 places along an axis a doubled picture's pixel reaches through tap i of 3; both axes, [9, 16].
_AXIS = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
FOLD = torch.kron(_AXIS, _AXIS)


class ModulatedNorm(nn.Module):
    """Batch normalisation whose scale and shift come from w: x -> (1 + scale(w)) * norm(x) + shift(w)."""

    def __init__(self, channels: int, w_dim: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.affine = nn.Linear(w_dim, 2 * channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return modulate(self.norm(x), self.affine(w))


def modulate(x: Tensor, style: Tensor) -> Tensor:
    """(1 + scale) * x + shift, of features x [N, C, S, S]; style [N, 2 * C]: a scale for each, then a shift."""
    scale, shift = style[:, :, None, None].chunk(2, dim=1)  # [N, C, 1, 1] each
    return x * (1 + scale) + shift


def norm(kind: Literal["batch", "none"], channels: int, *, affine: bool = True) -> nn.Module:
    """Normalisation over a stage's feature maps."""
    return nn.BatchNorm2d(channels, affine=affine) if kind == "batch" else nn.Identity()


class ResizeConv(nn.Module):
    """Nearest resizing to twice the side, then a 3x3 convolution, as the one transposed convolution they amount to.

    Resizing first avoids the checkerboard that the uneven overlap of a free transposed convolution leaves early in
    training (Odena et al., distill.pub/2016/deconv-checkerboard); folding it into the kernel keeps the price of one:
    4 products an output pixel in place of 9.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.normal_(self.weight, 0.0, FIRST_STD)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv_transpose2d(x, self.kernel(), stride=2, padding=1)

    def kernel(self) -> Tensor:
        """Of the transposed convolution, [in, out, 4, 4]."""
        outputs, inputs = self.weight.shape[:2]
        folded = self.weight.flatten(2) @ FOLD.to(self.weight)  # [out, in, 16]
        return folded.view(outputs, inputs, 4, 4).transpose(0, 1)  # in first, as a transposed convolution reads it


def upsample(kind: Literal["transposed", "resize"], in_channels: int, out_channels: int) -> nn.Module:
    """Double the side, [N, in, S, S] -> [N, out, 2S, 2S]."""
    if kind == "resize":
        return ResizeConv(in_channels, out_channels)
    return nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)


class SkipExcitation(nn.Module):
    """Gate each feature map of x by what `source`, far from it in resolution, holds. arXiv:2101.04775, eq. 1.

    The paper's 4x4 convolution over 4x4 features and its 1x1 convolution of the one pixel left are dense layers.
    """

    def __init__(self, source_channels: int, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(source_channels * 4 * 4, channels)
        self.excite = nn.Linear(channels, channels)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """x [N, C, S, S], source [N, source_channels, T, T] -> [N, C, S, S]; T is a multiple of 4."""
        pooled = functional.avg_pool2d(source, source.shape[-1] // 4).flatten(1)
        gate = torch.sigmoid(self.excite(functional.leaky_relu(self.squeeze(pooled), LEAK)))  # [N, C]
        return x * gate.to(x.dtype)[:, :, None, None]


def double(x: Tensor) -> Tensor:
    """x [N, C, S, S] -> [N, C, 2S, 2S]: zeros between the pixels, then the filter [1, 3, 3, 1] / 4 along each axis."""
    return _filtered(x, functional.conv_transpose2d, 4 * 4)


def halve(x: Tensor) -> Tensor:
    """x [N, C, S, S] -> [N, C, S/2, S/2]: the filter [1, 3, 3, 1] / 8 along each axis, at every second pixel."""
    return _filtered(x, functional.conv2d, 8 * 8)


def _filtered(x: Tensor, convolve: Callable[..., Tensor], divisor: int) -> Tensor:
    """In float32 at least: CPUs take ten times as long over a depthwise convolution in bfloat16."""
    channels, precision = x.shape[1], torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        taps = 4 - 2 * (torch.arange(4, device=x.device, dtype=precision) - 1.5).abs()  # 1 3 3 1
        kernel = (torch.outer(taps, taps) / divisor).expand(channels, 1, 4, 4)
        return convolve(x.to(precision), kernel, stride=2, padding=1, groups=channels).to(x.dtype)


def by_layer(synthesis: nn.Module, start: Tensor, stage: Callable[[str], int]) -> list[Tensor]:
    """What acts on each layer of w first, [outputs, w_dim] each: scales and shifts, and `start` on the first layer."""
    acting: dict[int, list[Tensor]] = {0: [start]}
    for name, weight in synthesis.named_parameters():
        if name.endswith("affine.weight"):
            acting.setdefault(stage(name), []).append(weight)
    return [torch.cat(acting[layer]) for layer in sorted(acting)]


def stage_of(name: str, first_stages: Mapping[str, int]) -> int:
    """The stage that a tensor of a synthesis belongs to, by its name: its part's first one, and on by its index."""
    part, _, rest = name.partition(".")
    index = rest.partition(".")[0]
    return first_stages[part] + (int(index) if index.isdecimal() else 0)
