"""The mapping network: z, and a text where there is one, to w."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import NetworkConfig
from models.networks.conditioning import CaptionAugmentation
from models.networks.layers import LEAK


class Mapping(nn.Module):
    """z [N, z_dim], text vectors c [N, dim] -> w [N, num_ws, w_dim]: a few dense layers, or z itself without any.

    Before dense layers z is brought to length sqrt(z_dim), so that only its direction counts (arXiv:1812.04948, C).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.num_ws = config.num_ws
        self.caption = None if config.text is None else CaptionAugmentation(config.text.dim)
        inputs = config.z_dim + (config.text.dim if config.text is not None else 0)
        sizes = [inputs] + [config.w_dim] * config.mapping_layers
        self.layers = nn.ModuleList(_dense(i, o) for i, o in pairwise(sizes))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        w = z
        if self.layers:
            w = functional.normalize(z, dim=1) * z.shape[1] ** 0.5
        if self.caption is not None:
            if c is None:
                raise ValueError("This mapping takes a text vector too: text(zeros) where there is no text.")
            # As long as z, so that neither drowns out the other (as in arXiv:2006.06676's conditional mapping).
            w = torch.cat([w, functional.normalize(self.caption(c), dim=1) * c.shape[1] ** 0.5], dim=1)
        for layer in self.layers:
            w = functional.leaky_relu(layer(w), LEAK)
        return w[:, None, :].repeat(1, self.num_ws, 1)

    def divergence(self, c: Tensor) -> Tensor:
        """How far the variation around texts c [N, dim] is from the standard normal one, [N]; 0 without texts."""
        return self.caption.divergence(c) if self.caption is not None else c.new_zeros(len(c))


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, LEAK)
    nn.init.zeros_(layer.bias)
    return layer
