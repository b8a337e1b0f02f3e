"""Text encoders: captions and labels to numbers, without downloads by default."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import EncoderUnavailable

HASHED = "hashed-"
SENTENCE = "sentence:"
DEFAULT_ENCODER = "hashed-8192"
MAX_WORDS = 64  # of one text; what follows says little more
GRAM_LENGTHS = (3, 4, 5)  # characters; so that a word spelt a little otherwise comes out near (arXiv:1607.04606)
VOCABULARY_WORDS = 2000  # most that a checkpoint lists
MAX_LETTERS = 64  # of one word; longer ones, as a sentence of a script without spaces, count as several
_BETWEEN = re.compile(r"[\W_]")  # an underscore parts words: file and folder names have them in the place of spaces
_WORD = re.compile(rf"\S{{1,{MAX_LETTERS}}}")


class TextEncoder(Protocol):
    """What turns texts into numbers: the same text, the same numbers, for ever. A checkpoint records the id."""

    @property
    def id(self) -> str:
        """What `build_encoder` makes this one from."""

    @property
    def size(self) -> int:
        """How many numbers a text gets."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, size]; a row of zeros for a text without words."""


def words(text: str) -> list[str]:
    """The words of a text, in one spelling: case folded, compatibility forms unified, punctuation dropped."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    spaced = _BETWEEN.sub(_mark_or_space, folded)
    return [word for word in _WORD.findall(spaced) if any(map(str.isalnum, word))][:MAX_WORDS]


def _mark_or_space(found: re.Match[str]) -> str:
    """Vowel signs and accents belong to their letter, though they are none by themselves."""
    return found[0] if unicodedata.category(found[0]).startswith("M") else " "


def vocabulary(texts: Sequence[str]) -> tuple[str, ...]:
    """The words of texts, those of most texts first."""
    counts = Counter(word for text in texts for word in set(words(text)))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(ranked[:VOCABULARY_WORDS])


def terms(text: str, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a text that are among the known ones, and those that are not, each once and in order."""
    said = list(dict.fromkeys(words(text)))
    listed = set(known)
    return [word for word in said if word in listed], [word for word in said if word not in listed]


class HashedEncoder:
    """Counts a text's words in one half of the buckets, and their groups of 3 to 5 letters in the other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.id = f"{HASHED}{size}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, size]: 1 for every word, and as much again for the groups of letters in it, all together."""
        features = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                places, values = _word_features(word, self.size)
                np.add.at(features[row], places, values)
        return features


@lru_cache(maxsize=16_384)
def _word_features(word: str, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where a word counts, and how much: itself, then its groups of letters, of squares that add up to 1."""
    half = size // 2
    marked = f"<{word}>"
    grams = [marked[i : i + length] for length in GRAM_LENGTHS for i in range(len(marked) - length + 1)]
    places = [_bucket(word) % half, *(half + _bucket(gram) % half for gram in grams)]
    values = [1.0, *([len(grams) ** -0.5] * len(grams))]
    return np.array(places), np.array(values, dtype=np.float32)


def _bucket(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


class SentenceEncoder:
    """Any sentence-transformers model, by its name or local folder; needs the extra `text`."""

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EncoderUnavailable(
                f"Text encoder {name!r} needs the extra `text`: pip install 'ganvas[text]'."
            ) from error
        try:
            self._model = SentenceTransformer(name, device="cpu")
        except (OSError, ValueError) as error:
            raise EncoderUnavailable(
                f"Text encoder {name!r} could not be loaded ({error}); name a model that is downloaded, or its folder."
            ) from error
        self.id = f"{SENTENCE}{name}"
        self.size = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, size], each of length 1, and zeros for a text without words."""
        vectors = np.asarray(self._model.encode(list(texts), normalize_embeddings=True), dtype=np.float32)
        spoken = np.array([bool(words(text)) for text in texts], dtype=np.float32)
        return vectors.reshape(len(texts), self.size) * spoken[:, None]


@lru_cache(maxsize=4)
def build_encoder(encoder_id: str) -> TextEncoder:
    """The encoder of that id: "hashed-8192", or "sentence:NAME". Raises EncoderUnavailable."""
    if encoder_id.startswith(SENTENCE):
        return SentenceEncoder(encoder_id.removeprefix(SENTENCE))
    size = encoder_id.removeprefix(HASHED)
    if encoder_id.startswith(HASHED) and size.isascii() and size.isdecimal() and 64 <= int(size) <= 65_536:
        return HashedEncoder(int(size))
    raise EncoderUnavailable(
        f"There is no text encoder {encoder_id!r}; there are hashed-N (N from 64 to 65536) and sentence:NAME."
    )


def feature_weights(encoder: TextEncoder, texts: Sequence[str]) -> NDArray[np.float32]:
    """How much each feature should count, [size]: what many texts share less than what few do, and what is in none
    nothing (inverse document frequency; Spärck Jones, 1972). An encoder of dense vectors has no such features."""
    if not encoder.id.startswith(HASHED):
        return np.ones(encoder.size, dtype=np.float32)
    frequency = np.zeros(encoder.size)
    for text, times in Counter(texts).items():
        frequency += times * (encoder.encode([text])[0] > 0)
    weights = 1 + np.log((1 + len(texts)) / (1 + frequency))
    return np.where(frequency > 0, weights, 0).astype(np.float32)
