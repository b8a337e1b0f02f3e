"""What a text means to a generator: worked out once and by itself, so that it is the same in any batch."""

from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import NamedTuple

import torch
from torch import Tensor

from app.core.errors import Conflict
from models.config import TextConfig
from models.errors import EncoderUnavailable
from models.latents.truncation import center
from models.networks.generator import Generator
from models.text import TextEncoder, build_encoder

REMEMBERED_TEXTS = 1024  # a generator: twice as many as seeds alone pick from; each has a few kilobytes
_encoding = Lock()  # sentence encoders take one caller at a time


class Meaning(NamedTuple):
    """A text as a generator takes it."""

    c: Tensor  # [1, dim]
    center: Tensor  # [w_dim]: what truncation pulls pictures of this text towards
    silent: bool  # it has no words, or none that the generator was trained with


Meanings = Callable[[str], Meaning]


def meanings(generator: Generator) -> Meanings | None:
    """From a text to its meaning, safe to ask from any thread, the latest answers remembered; None where the generator
    knows no texts. Raises Conflict where its encoder cannot be had here."""
    network = generator.text
    if network is None or generator.config.text is None:
        return None
    encoder = _encoder(generator.config.text)
    silence = torch.zeros(1, encoder.size, device=generator.w_avg.device)

    @lru_cache(REMEMBERED_TEXTS)
    @torch.inference_mode()
    def meaning(text: str) -> Meaning:
        with _encoding:
            features = torch.from_numpy(encoder.encode([text]))  # [1, F]
        c = network(features.to(silence.device))
        if torch.equal(c, network(silence)):  # no words, or none it has ever seen
            return Meaning(c, generator.w_avg, silent=True)
        return Meaning(c, center(generator, c), silent=False)

    return meaning


def _encoder(config: TextConfig) -> TextEncoder:
    try:
        encoder = build_encoder(config.encoder)
    except EncoderUnavailable as error:
        raise Conflict(f"This model cannot be drawn from here: {error}", code="encoder_unavailable") from error
    if encoder.size != config.features:
        raise Conflict(
            f"Text encoder {config.encoder!r} gives {encoder.size} numbers here; this model was trained with "
            f"{config.features}. Install the one it was trained with.",
            code="encoder_unavailable",
        )
    return encoder
