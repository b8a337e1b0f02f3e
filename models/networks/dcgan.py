"""DCGAN: strided convolutions up and down. Radford et al., arXiv:1511.06434."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import NetworkConfig
from models.networks.discriminator import Features
from models.networks.layers import LEAK, ModulatedNorm, by_layer, norm, stage_of, upsample


class Synthesis(nn.Module):
    """w [N, num_ws, w_dim] -> x [N, C, R, R] in [-1, 1]: 4x4 features from the first w, doubled until they fit.

    With a mapping network each stage's scale and shift come from its own w; without, the first w alone paints.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths = config.generator_widths
        self.modulated = config.mapping_layers > 0
        self.start = nn.ConvTranspose2d(config.w_dim, widths[0], 4, bias=False)
        self.upsamples = nn.ModuleList(upsample(config.upsampling, i, o) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(self._norm(config, width) for width in widths)
        if len(widths) == config.doublings:
            self.paint = upsample(config.upsampling, widths[-1], config.channels)
        else:
            self.paint = nn.Conv2d(widths[-1], config.channels, 3, padding=1)
        initialise(self)

    def _norm(self, config: NetworkConfig, width: int) -> nn.Module:
        if self.modulated:
            return ModulatedNorm(width, config.w_dim, norm(config.generator_norm, width, affine=False))
        return norm(config.generator_norm, width)

    def forward(self, w: Tensor) -> Tensor:
        x = self.start(w[:, 0, :, None, None])  # [N, widths[0], 4, 4]
        for stage, normalise in enumerate(self.norms):
            if stage > 0:
                x = self.upsamples[stage - 1](x)
            x = functional.relu(normalise(x, w[:, stage]) if self.modulated else normalise(x))
        # In the weights' precision under autocast too: next to white, 1.0, bfloat16 only has 0.996 and no slope.
        return torch.tanh(self.paint(x).float())

    def style_weights(self) -> list[Tensor]:
        """What acts on each layer of w first, [outputs, w_dim] each."""
        return by_layer(self, self.start.weight.flatten(1).T, self.stage_of)

    def stage_of(self, name: str) -> int:
        """The stage that a tensor belongs to, by its name."""
        return stage_of(name, {"start": 0, "upsamples": 1, "norms": 0, "paint": len(self.norms) - 1})


class Critic(nn.Module):
    """x [N, C, R, R] -> one logit: 4x4 convolutions of stride 2 down to 4x4 features, and one over those."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        sides = (config.channels, *reversed(config.discriminator_widths))
        # The first layer sees pixels, and the textbook leaves those as they are: no normalisation there.
        kinds = ["none"] + [config.discriminator_norm] * (config.doublings - 1)
        layers: list[nn.Module] = []
        for (inputs, outputs), kind in zip(pairwise(sides), kinds, strict=True):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=config.discriminator_norm == "none"))
            layers.append(norm("batch" if kind == "batch" else "none", outputs))
            layers.append(nn.LeakyReLU(LEAK))
        self.features = nn.Sequential(*layers)
        self.logit = nn.Conv2d(sides[-1], 1, 4, bias=False)
        self.summary_dim = sides[-1] * 4 * 4
        initialise(self, he=config.discriminator_norm == "none")

    @property
    def stages(self) -> list[nn.Module]:
        """The halvings of the side, from the pixels on."""
        return [self.features[start : start + 3] for start in range(0, len(self.features), 3)]

    def forward(self, x: Tensor) -> Features:
        weight = self.logit.weight  # [1, C, 4, 4]
        summary = self.features(x).to(weight.dtype)  # [N, C, 4, 4]
        # The convolution over 4x4 features, written as a sum so that autocast leaves logits in the weights' precision.
        logits = (summary * weight).sum(dim=(1, 2, 3))[:, None]  # [N, 1]
        return Features(logits, summary.flatten(1))


def initialise(network: nn.Module, *, he: bool = False) -> None:
    """First weights: N(0, 0.02) as in the paper, or He's where no normalisation would restore the scale.

    A modulation starts near the identity: its scale and shift are N(0, 0.02) of w, with no bias.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            if he:
                nn.init.kaiming_normal_(module.weight, LEAK)
            else:
                nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
