"""R3GAN: residual networks without a norm or any other trick. Huang et al., arXiv:2501.05441."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import NetworkConfig
from models.networks.discriminator import Features
from models.networks.layers import FIRST_STD, LEAK, by_layer, double, halve, modulate, stage_of

EXPANSION = 2  # feature maps inside a block for each one outside


class Block(nn.Module):
    """x [N, C, S, S] -> x + branch(x): 1x1 to twice the maps, 3x3 in groups, 1x1 back. arXiv:2501.05441, 3.3.

    The first weights are those of networks whose depth is not held by norms (Fixup, arXiv:1901.09321): the last
    convolution is zero, so that the block starts as the identity, and the others shrink with the count of blocks.
    """

    def __init__(self, channels: int, group_size: int, count: int) -> None:
        super().__init__()
        inner = EXPANSION * channels
        if inner % group_size:
            raise ValueError(f"Width {channels} is {inner} maps in a block: no multiple of group_size {group_size}.")
        self.widen = nn.Conv2d(channels, inner, 1)
        self.group = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // group_size)
        self.narrow = nn.Conv2d(inner, channels, 1, bias=False)
        gain = (2 / (1 + LEAK**2)) ** 0.5 * count**-0.25  # of LeakyReLU, and of `count` branches of 3 convolutions
        for layer in (self.widen, self.group):
            spread(layer, gain)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.widen(x), LEAK)
        y = functional.leaky_relu(self.group(y), LEAK)
        out: Tensor = x + self.narrow(y)
        return out


class Modulation(nn.Module):
    """x -> (1 + scale(w)) * x + shift(w), near the identity at first: how w reaches a stage that has no norm."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, 2 * channels)
        nn.init.normal_(self.affine.weight, 0.0, FIRST_STD)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return modulate(x, self.affine(w))


class Synthesis(nn.Module):
    """w [N, num_ws, w_dim] -> x [N, C, R, R] about [-1, 1]: learnt 4x4 maps weighted by the first w, then doubled.

    With a mapping network each stage also starts with a modulation by its own w; without, the first w alone paints.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = config.generator_widths
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.weigh = nn.Linear(config.w_dim, widths[0], bias=False)
        self.projections = nn.ModuleList(_projection(i, o) for i, o in pairwise(widths))
        styles = widths if config.mapping_layers else ()
        self.styles = nn.ModuleList(Modulation(width, config.w_dim) for width in styles)
        self.stages = nn.ModuleList(_blocks(width, config) for width in widths)
        self.paint = nn.Conv2d(widths[-1], config.channels, 1, bias=False)
        for layer in (self.weigh, self.paint):
            spread(layer)

    def forward(self, w: Tensor) -> Tensor:
        x = self.weigh(w[:, 0])[:, :, None, None] * self.basis  # [N, widths[0], 4, 4]
        for stage, blocks in enumerate(self.stages):
            if stage > 0:
                x = double(self.projections[stage - 1](x))
            if self.styles:
                x = self.styles[stage](x, w[:, stage])
            x = blocks(x)
        painted: Tensor = self.paint(x)
        return painted.float()

    def style_weights(self) -> list[Tensor]:
        """What acts on each layer of w first, [outputs, w_dim] each."""
        start = self.basis.flatten(1)[:, :, None] * self.weigh.weight[:, None]  # [widths[0], 4 * 4, w_dim]
        return by_layer(self, start.flatten(0, 1), self.stage_of)

    def stage_of(self, name: str) -> int:
        """The stage that a tensor belongs to, by its name."""
        last = len(self.stages) - 1
        return stage_of(name, {"basis": 0, "weigh": 0, "projections": 1, "styles": 0, "stages": 0, "paint": last})


class Critic(nn.Module):
    """x [N, C, R, R] -> one logit: the generator's mirror image. `stages` begin at the pixels."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = config.discriminator_widths[::-1]  # at R, R/2 ... 4 pixels
        sees = nn.Conv2d(config.channels, widths[0], 1, bias=False)
        spread(sees)
        self.stages = nn.ModuleList([nn.Sequential(sees, _blocks(widths[0], config))])
        for inputs, outputs in pairwise(widths):
            self.stages.append(nn.Sequential(Halve(), _projection(inputs, outputs), _blocks(outputs, config)))
        self.gather = nn.Parameter(torch.randn(widths[-1], 4, 4) / 4)  # a depthwise 4x4 convolution over 4x4 features
        self.logit = nn.Parameter(torch.randn(widths[-1]) / widths[-1] ** 0.5)
        self.summary_dim = widths[-1]

    def forward(self, x: Tensor) -> Features:
        for stage in self.stages:
            x = stage(x)
        # Both as sums, so that autocast leaves summary and logits in the weights' precision.
        summary = (x.to(self.gather.dtype) * self.gather).sum(dim=(2, 3))  # [N, C]
        return Features((summary * self.logit).sum(dim=1, keepdim=True), summary)


class Halve(nn.Module):
    """Half the side, filtered."""

    def forward(self, x: Tensor) -> Tensor:
        return halve(x)


def spread(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> None:
    """First weights N(0, gain / sqrt(inputs)), which keep the scale of what passes; biases zero."""
    nn.init.normal_(layer.weight, 0.0, gain / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _blocks(channels: int, config: NetworkConfig) -> nn.Sequential:
    count = config.blocks * (config.doublings + 1)  # in the whole network
    return nn.Sequential(*(Block(channels, config.group_size, count) for _ in range(config.blocks)))


def _projection(inputs: int, outputs: int) -> nn.Module:
    """Between stages of different widths alone."""
    if inputs == outputs:
        return nn.Identity()
    projection = nn.Conv2d(inputs, outputs, 1, bias=False)
    spread(projection)
    return projection
