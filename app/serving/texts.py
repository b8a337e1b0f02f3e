"""What a text means to a generator: worked out once, in blocks of a fixed number of rows, so that it is the same
whether it was asked for alone or learnt with others."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.core.errors import Conflict
from app.serving.point import Point
from models.config import TextConfig
from models.errors import EncoderUnavailable
from models.latents.truncation import CENTER_SAMPLES
from models.networks.conditioning import TextVector
from models.networks.generator import Generator
from models.networks.layers import LEAK
from models.text import TextEncoder, build_encoder

REMEMBERED_PROMPTS = 512  # a generator, the latest ones, beside the captions that seeds pick from; a kilobyte each
CPU_BLOCK, GPU_BLOCK = 8, 64  # rows that dense layers see at once, always; a GPU takes no longer over 64 than over 8
LEARNING_PAUSE = 0.02  # seconds after each block of captions: learning them all takes a fifth of a core, for a second
_encoding = Lock()  # sentence encoders take one caller at a time


def block_rows(device: torch.device) -> int:
    """How many rows of latents or texts a device calculates at once, however few there are."""
    return CPU_BLOCK if device.type == "cpu" else GPU_BLOCK


class Meaning(NamedTuple):
    """A text as a generator takes it."""

    c: Tensor  # [1, dim]
    center: Tensor  # [w_dim]: what truncation pulls pictures of this text towards
    silent: bool  # it has no words, or none that the generator was trained with


class Meanings:
    """From texts to their meaning, for one generator; any thread may ask. What was asked for lately is remembered, and
    all captions that seeds pick from. Raises Conflict where the generator's encoder cannot be had here."""

    def __init__(self, generator: Generator, text: TextVector, config: TextConfig) -> None:
        self._encoder = _encoder(config)
        self._generator = generator
        self._text = text
        self._captions = dict.fromkeys(generator.captions)  # in their order, each once
        self._known: dict[str, Meaning] = {}  # captions
        self._asked: OrderedDict[str, Meaning] = OrderedDict()  # other texts, the least recently asked first
        self._lock = Lock()
        with torch.inference_mode():
            self._center = _center(generator)
            self._silence = self._vectors(torch.zeros(1, self._encoder.size))[0]  # [1, dim]

    @property
    def bytes(self) -> int:
        """What it remembers: latents as the first layer sees them, and the texts, which are small beside that."""
        each = self._silence.shape[1] + self._generator.w_dim
        numbers = CENTER_SAMPLES * self._generator.w_dim + (len(self._known) + len(self._asked)) * each
        return numbers * self._silence.element_size()

    def __call__(self, text: str) -> Meaning:
        """What one text means."""
        return self._of_texts([text])[0]

    def of(self, recipes: Sequence[Point]) -> list[Meaning]:
        """What recipes tell the generator; where that is nothing, one of the texts it was trained with, by the seed."""
        texts = [recipe.text or self._generator.text_of(recipe.seed) for recipe in recipes]
        meant = self._of_texts(texts)
        for place, recipe in enumerate(recipes):
            if meant[place].silent:
                meant[place] = self(self._generator.text_of(recipe.seed))
        return meant

    def learn(self, wanted: Callable[[], bool]) -> None:
        """Work out the captions that seeds pick from, for as long as that is wanted, and leave the machine to others
        most of the time."""
        unknown = [caption for caption in self._captions if caption not in self._known]
        rows = block_rows(self._silence.device)
        for start in range(0, len(unknown), rows):
            if not wanted():
                return
            self._of_texts(unknown[start : start + rows])
            time.sleep(LEARNING_PAUSE)

    @torch.inference_mode()
    def _of_texts(self, texts: Sequence[str]) -> list[Meaning]:
        known = {text: meaning for text in texts if (meaning := self._remembered(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        rows = block_rows(self._silence.device)
        for start in range(0, len(missing), rows):
            block = missing[start : start + rows]
            for text, c in zip(block, self._vectors(self._features(block)), strict=True):
                silent = torch.equal(c, self._silence)  # no words, or none it has ever seen
                known[text] = Meaning(c, self._generator.w_avg if silent else self._center(c), silent)
                self._remember(text, known[text])
        return [known[text] for text in texts]

    def _features(self, texts: Sequence[str]) -> Tensor:
        with _encoding:
            return torch.from_numpy(self._encoder.encode(texts))  # [N, F]

    def _vectors(self, features: Tensor) -> list[Tensor]:
        """c of at most a block of texts, [1, dim] each; features: [N, F]."""
        device = self._generator.w_avg.device
        padded = functional.pad(features, (0, 0, 0, block_rows(device) - len(features)))
        c = self._text(padded.to(device))  # [block, dim]
        return [c[row, None] for row in range(len(features))]

    def _remembered(self, text: str) -> Meaning | None:
        if text in self._captions:
            return self._known.get(text)
        with self._lock:
            if text in self._asked:
                self._asked.move_to_end(text)
            return self._asked.get(text)

    def _remember(self, text: str, meaning: Meaning) -> None:
        if text in self._captions:
            self._known[text] = meaning
            return
        with self._lock:
            self._asked[text] = meaning
            if len(self._asked) > REMEMBERED_PROMPTS:
                self._asked.popitem(last=False)


def meanings(generator: Generator) -> Meanings | None:
    """What texts mean to a generator; None where it knows none. Raises Conflict where its encoder cannot be had."""
    if generator.text is None or generator.config.text is None:
        return None
    return Meanings(generator, generator.text, generator.config.text)


def _center(generator: Generator) -> Callable[[Tensor], Tensor]:
    """models.latents.truncation.center of one generator, from c [1, dim] to [w_dim], at a tenth of its price.

    Latents and text meet in the sum of the first dense layer, and the latents' share of it is the same for every text.
    """
    mapping, z_dim = generator.mapping, generator.z_dim
    first, *others = (layer for layer in mapping.layers if isinstance(layer, nn.Linear))
    z = torch.from_numpy(np.random.RandomState(0).randn(CENTER_SAMPLES, z_dim).astype(np.float32))
    latents = functional.normalize(z.to(generator.w_avg.device), dim=1) * z_dim**0.5
    of_latents = functional.linear(latents, first.weight[:, :z_dim], first.bias)  # [samples, w_dim]
    of_texts = first.weight[:, z_dim:]

    def center(c: Tensor) -> Tensor:
        told = functional.normalize(mapping.caption(c), dim=1) * c.shape[1] ** 0.5  # type: ignore[misc] # it has texts
        w = functional.leaky_relu(of_latents + functional.linear(told, of_texts), LEAK, inplace=True)
        for layer in others:
            w = functional.leaky_relu(layer(w), LEAK, inplace=True)
        return w.mean(dim=0)

    return center


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
