"""What every discriminator is: a critic of pictures, and a head that says how well a picture fits a text."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import NetworkConfig


class Features(NamedTuple):
    """What a critic found in pictures. `summary` [N, F] is what a text is compared with, in the weights' precision."""

    logits: Tensor  # [N, L]: one a picture, or one a place
    summary: Tensor
    maps: tuple[Tensor, ...] = ()  # what self-supervision redraws the pictures from


class Critique(NamedTuple):
    """D's opinion of pictures."""

    logits: Tensor  # [N, L], without regard to any text
    vector: Tensor | None  # [N, dim], in the space of text vectors; None where D knows no texts
    maps: tuple[Tensor, ...] = ()

    def given(self, text: Tensor | None) -> Tensor:
        """Logits of each picture with its own text [N, dim], [N, L]. Miyato and Koyama, arXiv:1802.05637, eq. 7."""
        if self.vector is None or text is None:
            return self.logits
        fit: Tensor = (self.vector * text).sum(dim=1, keepdim=True) / self.vector.shape[1] ** 0.5
        return self.logits + fit

    def match(self, texts: Tensor) -> Tensor:
        """How well every picture fits every text [M, dim], [N, M]: what `given` adds for that text."""
        if self.vector is None:
            raise ValueError("This discriminator knows no texts.")
        with torch.autocast(self.vector.device.type, enabled=False):  # it decides by small differences, as `given` does
            fit: Tensor = self.vector @ texts.T / self.vector.shape[1] ** 0.5
        return fit


class Discriminator(nn.Module):
    """D: x [N, C, R, R] in [-1, 1] -> Critique. Its critic gives Features of x, and has `summary_dim`, the length of
    their summary, `stages`, its parts from the pixels on, and, where it can, `redraw_loss(images, maps)`."""

    def __init__(self, config: NetworkConfig, critic: Callable[[NetworkConfig], nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.critic = critic(config)
        self.compare = None
        if config.text is not None:
            inputs = int(self.critic.summary_dim)  # type: ignore[arg-type]
            self.compare = nn.Linear(inputs, config.text.dim, bias=False)
            nn.init.normal_(self.compare.weight, 0.0, inputs**-0.5)

    def forward(self, x: Tensor) -> Critique:
        features: Features = self.critic(x)
        if self.compare is None:
            return Critique(features.logits, None, features.maps)
        with torch.autocast(x.device.type, enabled=False):
            return Critique(features.logits, self.compare(features.summary), features.maps)

    def freeze(self, stages: int) -> None:
        """Keep the first stages, from the pixels on, as they are. Mo et al., arXiv:2002.10964."""
        for stage in self.critic.stages[:stages]:  # type: ignore[index]
            stage.requires_grad_(False)

    def redraw_loss(self, images: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        """How badly real images, as D saw them, are redrawn from what it found in them, []; for critics that can."""
        loss: Tensor = self.critic.redraw_loss(images, maps)  # type: ignore[operator]
        return loss
