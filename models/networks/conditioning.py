"""From a text's features to the vector that D judges by and G draws from."""

from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import TextConfig
from models.networks.layers import LEAK

FIRST_SIGMA = 0.2  # of the variation around a text; at 1, as the divergence would have it, G hears mostly noise


class TextVector(nn.Module):
    """Features of texts [N, F], zeros for none -> text vectors [N, dim]; trained with D, as D is asked about texts.

    `weight` says how much each feature counts: rare ones more than common ones, those of no caption in the dataset
    nothing. So an unknown word is silent, and a text of unknown words alone is as no text.
    """

    weight: Tensor  # [F]

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(config.features))
        self.embed = nn.Linear(config.features, config.dim, bias=False)
        self.hidden = nn.Linear(config.dim, config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        # A text has unit length and few features, each of which has to say something by itself.
        nn.init.normal_(self.embed.weight)
        for layer in (self.hidden, self.out):
            nn.init.kaiming_normal_(layer.weight, LEAK)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):  # a sum of few features leaves no room for rounding
            known = functional.normalize(features * self.weight, dim=1)  # [N, F]
            hidden = functional.leaky_relu(self.hidden(functional.leaky_relu(self.embed(known), LEAK)), LEAK)
            vector: Tensor = self.out(hidden)
        return vector


class CaptionAugmentation(nn.Module):
    """A text vector [N, dim] to a point near it, drawn anew for every picture, so that G learns what lies between the
    captions too; in evaluation mode to the middle. Zhang et al., arXiv:1612.03242, 3.2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(dim, dim)
        self.log_variance = nn.Linear(dim, dim)
        for layer in (self.mean, self.log_variance):
            nn.init.normal_(layer.weight, 0.0, dim**-0.5)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, 2 * log(FIRST_SIGMA))

    def forward(self, text: Tensor) -> Tensor:
        mean: Tensor = self.mean(text)
        if not self.training:
            return mean
        near: Tensor = mean + torch.randn_like(mean) * (self.log_variance(text) / 2).exp()
        return near

    def divergence(self, text: Tensor) -> Tensor:
        """Of the normal distribution drawn from, from the standard one, a dimension, [N]. arXiv:1312.6114, B."""
        with torch.autocast(text.device.type, enabled=False):  # near 1, exp has too few digits in bfloat16
            mean, log_variance = self.mean(text), self.log_variance(text)
            divergence: Tensor = (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=1) / 2
        return divergence
