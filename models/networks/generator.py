"""What every generator is: a mapping from z and a text to w, and a synthesis from w to pictures."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.config import NetworkConfig
from models.networks.conditioning import TextVector
from models.networks.mapping import Mapping


class Generator(nn.Module):
    """G: mapping(z, c) -> w [N, num_ws, w_dim], synthesis(w) -> x [N, C, R, R] in [-1, 1].

    c [N, text.dim] is `text(features)`, where the networks know texts; None is no text.
    """

    w_avg: Tensor  # [w_dim], the mean of w over z, towards which truncation pulls

    def __init__(self, config: NetworkConfig, synthesis: Callable[[NetworkConfig], nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.w_dim = config.w_dim
        self.num_ws = config.num_ws
        self.captions: tuple[str, ...] = ()  # some texts it was trained with
        self.text = None if config.text is None else TextVector(config.text)
        self.mapping = Mapping(config)
        self.synthesis = synthesis(config)
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def text_of(self, seed: int) -> str:
        """What a picture shows that was asked for by seed alone: one of the texts that the dataset's pictures have."""
        return self.captions[seed % len(self.captions)] if self.captions else ""

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        x: Tensor = self.synthesis(self.mapping(z, c))
        return x
