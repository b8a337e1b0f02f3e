"""Judging: D, asked which pictures fit a text best."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.core.errors import InvalidRequest
from app.serving.capacity import held_bytes
from app.serving.texts import Meanings
from models.checkpoint import load_discriminator
from models.errors import CheckpointInvalid
from models.networks.discriminator import Discriminator


class Judge:
    """D of one checkpoint. It sees one picture at a time, so that a verdict depends on nothing else."""

    def __init__(self, discriminator: Discriminator, meaning: Meanings) -> None:
        self.discriminator = discriminator
        self.meaning = meaning
        self.bytes = held_bytes(discriminator)

    @torch.inference_mode()
    def matches(self, text: str, pictures: Sequence[NDArray[np.uint8]]) -> list[float]:
        """How well each picture [R, R, C] fits a text; higher is better."""
        c = self.meaning(text).c
        return [self.discriminator(_seen(picture, c.device)).match(c).item() for picture in pictures]


def load_judge(path: Path, device: torch.device, meaning: Meanings | None) -> Judge:
    """The judge of a checkpoint's file. Raises InvalidRequest where it holds none, or none that knows texts."""
    if meaning is None:
        raise InvalidRequest(
            "best_of ranks by a text, and these weights know none.", code="best_of_needs_prompt", param="best_of"
        )
    try:
        return Judge(load_discriminator(path, device), meaning)
    except CheckpointInvalid as error:
        message = f"best_of cannot rank here: {error} Leave best_of out."
        raise InvalidRequest(message, code="discriminator_missing", param="best_of") from error


def _seen(picture: NDArray[np.uint8], device: torch.device) -> Tensor:
    """A picture as D takes it, x [1, C, R, R] in [-1, 1]."""
    pixels = torch.from_numpy(picture).to(device).permute(2, 0, 1)[None]
    return pixels / 127.5 - 1
