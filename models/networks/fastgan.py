"""FastGAN: few pictures are enough. Liu et al., arXiv:2101.04775.

No spectral norm, which the paper has on every convolution: before a batch norm it changes nothing, since that undoes
any factor on a convolution's weights; and a critic without norms is held by gradient penalties, whose second derivative
then needs no power iteration either.
"""

from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import NetworkConfig, Norm
from models.networks.dcgan import initialise
from models.networks.discriminator import Features
from models.networks.layers import LEAK, ModulatedNorm, SkipExcitation, by_layer, norm, stage_of, upsample
from models.networks.redrawing import Redrawer, redraw_error

GENERATOR_SKIP = 4  # stages from the features that gate to those they gate: 4 to 64 pixels, 8 to 128 ...
CRITIC_SKIP = 3  # in the critic, from R/2 to R/16, R/4 to R/32 ...
REDRAWN_MAX = 128  # pixels a side of what the critic redraws
SMALL_MAX = 128  # pixels a side of what the critic's small branch sees


class Gated(nn.Module):
    """A convolution to twice the feature maps, normalised, styled by w; one half of them gates the other (GLU)."""

    def __init__(self, convolution: nn.Module, width: int, config: NetworkConfig) -> None:
        super().__init__()
        self.convolution = convolution
        self.modulated = config.mapping_layers > 0
        self.norm = norm(config.generator_norm, 2 * width, affine=not self.modulated)
        if self.modulated:
            self.norm = ModulatedNorm(2 * width, config.w_dim, self.norm)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.convolution(x)
        return functional.glu(self.norm(x, w) if self.modulated else self.norm(x), dim=1)


class Synthesis(nn.Module):
    """w [N, num_ws, w_dim] -> x [N, C, R, R] in [-1, 1]: 4x4 features from the first w, doubled until they fit.

    Every second stage (8, 32, 128, 512 pixels) has one more convolution, and features gate those 16 times their side.
    With a mapping network each stage's scale and shift come from its own w; without, the first w alone paints. The
    paper also adds noise in the stages of two convolutions: left out, for a picture is what its w says and no more.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = config.generator_widths
        self.start = Gated(nn.ConvTranspose2d(config.w_dim, 2 * widths[0], 4, bias=False), widths[0], config)
        self.stages = nn.ModuleList()
        for stage, (inputs, width) in enumerate(pairwise(widths), start=1):
            layers = [Gated(upsample(config.upsampling, inputs, 2 * width), width, config)]
            if stage % 2 == 1:
                layers.append(Gated(nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), width, config))
            self.stages.append(nn.ModuleList(layers))
        skips = zip(widths, widths[GENERATOR_SKIP:], strict=False)
        self.gates = nn.ModuleList(SkipExcitation(source, width) for source, width in skips)
        self.paint = nn.Conv2d(widths[-1], config.channels, 3, padding=1)
        initialise(self)

    def forward(self, w: Tensor) -> Tensor:
        maps = [self.start(w[:, 0, :, None, None], w[:, 0])]  # [N, widths[0], 4, 4] first
        for stage, layers in enumerate(self.stages, start=1):
            x = maps[-1]
            for layer in layers:  # type: ignore[attr-defined]
                x = layer(x, w[:, min(stage, w.shape[1] - 1)])
            if stage >= GENERATOR_SKIP:
                x = self.gates[stage - GENERATOR_SKIP](x, maps[stage - GENERATOR_SKIP])
            maps.append(x)
        # In the weights' precision under autocast too: next to white, 1.0, bfloat16 only has 0.996 and no slope.
        return torch.tanh(self.paint(maps[-1]).float())

    def style_weights(self) -> list[Tensor]:
        """What acts on each layer of w first, [outputs, w_dim] each."""
        return by_layer(self, self.start.get_parameter("convolution.weight").flatten(1).T, self.stage_of)

    def stage_of(self, name: str) -> int:
        """The stage that a tensor belongs to, by its name; a gate's is that of the features it gates."""
        return stage_of(name, {"start": 0, "stages": 1, "gates": GENERATOR_SKIP, "paint": len(self.stages)})


class Down(nn.Module):
    """x [N, in, S, S] -> [N, out, S/2, S/2]: two convolutions, and beside them an average that is projected."""

    def __init__(self, inputs: int, outputs: int, kind: Norm) -> None:
        super().__init__()
        self.direct = nn.Sequential(
            *_convolution(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=kind == "none"), kind),
            *_convolution(nn.Conv2d(outputs, outputs, 3, padding=1, bias=kind == "none"), kind),
        )
        self.averaged = nn.Sequential(
            nn.AvgPool2d(2), *_convolution(nn.Conv2d(inputs, outputs, 1, bias=kind == "none"), kind)
        )

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.direct(x) + self.averaged(x)) / 2
        return mean


class Critic(nn.Module):
    """x [N, C, R, R] -> logits [N, 50], at 25 places of the picture and 25 of a small copy, and maps to redraw it from.

    The stem has stride 2, as the paper's for 512 pixels; `stages` begin there and end at 4x4 features. Each of the 5x5
    places sees what lies within 2 features of it, the middle one all of them.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = config.discriminator_widths[::-1]  # at R/2, R/4 ... 4 pixels
        kind = config.discriminator_norm
        stem = nn.Sequential(nn.Conv2d(config.channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK))
        self.stages = nn.ModuleList([stem, *(Down(i, o, kind) for i, o in pairwise(widths))])
        skips = zip(widths, widths[CRITIC_SKIP:], strict=False)
        self.gates = nn.ModuleList(SkipExcitation(source, width) for source, width in skips)
        self.logit = nn.Conv2d(widths[-1], 1, 4, padding=2, bias=False)
        self.small_side = min(SMALL_MAX, config.resolution // 2)
        self.small, small_width = _small_branch(config, self.small_side)
        self.small_logit = nn.Conv2d(small_width, 1, 4, padding=2, bias=False)
        self.sixteen = len(widths) - 3  # the stage of 16x16 features
        initialise(self, he=kind == "none")
        if kind == "none":
            self._keep_scale()

        self.redrawn_side = min(REDRAWN_MAX, config.resolution // 2)
        self.redraw_whole = Redrawer(widths[-1], 4, self.redrawn_side, config.channels)
        self.redraw_part = Redrawer(widths[self.sixteen], 8, self.redrawn_side, config.channels)
        self.summary_dim = widths[-1] * 4 * 4

    @torch.no_grad()
    def _keep_scale(self) -> None:
        """Make up for what no norm restores: a mean of two has 1/sqrt(2) of their scale, and a first gate is 1/2."""
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Down):
                gain = 2**0.5 * (2 if index >= CRITIC_SKIP else 1)
                for branch in (stage.direct, stage.averaged):
                    *_, last = (layer for layer in branch if isinstance(layer, nn.Conv2d))
                    last.weight.mul_(gain)

    def forward(self, x: Tensor) -> Features:
        small = self.small(_shrunk(x, self.small_side))  # [N, ..., 4, 4]
        maps: list[Tensor] = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index >= CRITIC_SKIP:
                x = self.gates[index - CRITIC_SKIP](x, maps[index - CRITIC_SKIP])
            maps.append(x)
        with torch.autocast(x.device.type, enabled=False):  # logits and summary in the weights' precision
            x, small = x.to(self.logit.weight.dtype), small.to(self.logit.weight.dtype)
            logits = torch.cat([self.logit(x).flatten(1), self.small_logit(small).flatten(1)], dim=1)  # [N, 25 + 25]
        return Features(logits, x.flatten(1), (x, maps[self.sixteen]))

    def redraw_loss(self, images: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """How badly the whole picture is redrawn from the 4x4 features, and a quarter of it from a quarter of the 16x16
        ones: D as an encoder, so that it cannot learn a few pictures by a few marks. arXiv:2101.04775, eq. 2."""
        last, sixteen = maps
        row, column = divmod(int(torch.randint(4, ())), 2)
        whole = _shrunk(images.detach(), self.redrawn_side)
        part = _shrunk(_quarter(images.detach(), row, column), self.redrawn_side)
        of_part = self.redraw_part(_quarter(sixteen, row, column))
        return redraw_error(self.redraw_whole(last), whole) + redraw_error(of_part, part)


def _small_branch(config: NetworkConfig, side: int) -> tuple[nn.Module, int]:
    """Small pictures [N, C, side, side] -> [N, width, 4, 4], by strided convolutions alone; and the width.

    At each side it has the width that the large branch has at four times that side, as in the paper.
    """
    widths = config.discriminator_widths
    steps = int(log2(side // 4))
    sides = [config.channels, *(widths[min(step + 2, len(widths) - 1)] for step in reversed(range(steps)))]
    kinds: list[Norm] = ["none", *[config.discriminator_norm] * (steps - 1)]
    layers: list[nn.Module] = []
    for (inputs, outputs), kind in zip(pairwise(sides), kinds, strict=True):
        layers += _convolution(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=kind == "none"), kind)
    return nn.Sequential(*layers), sides[-1]


def _convolution(convolution: nn.Conv2d, kind: Norm) -> list[nn.Module]:
    """A convolution, the norm where there is one, and LeakyReLU."""
    norms = [norm(kind, convolution.out_channels)] if kind == "batch" else []
    return [convolution, *norms, nn.LeakyReLU(LEAK)]


def _shrunk(x: Tensor, side: int) -> Tensor:
    """[N, C, S, S] -> [N, C, side, side], each pixel the mean of those it covers; S is a multiple of side."""
    return x if x.shape[-1] == side else functional.avg_pool2d(x, x.shape[-1] // side)


def _quarter(x: Tensor, row: int, column: int) -> Tensor:
    """One quarter of [N, C, S, S]: rows and columns 0 or 1."""
    side = x.shape[-1] // 2
    return x[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
