"""What a dataset says of its pictures, as the numbers that training takes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.config import TrainConfig
from models.text import HASHED, TextEncoder, feature_weights, words
from worker.dataset.store import replacing
from worker.training.ranks import ALONE, Ranks

NOTHING = -1  # in the place of a text's number: the picture has no such text
ENCODED_AT_ONCE = 256  # texts


class Shown(NamedTuple):
    """The texts that a batch of pictures is shown with."""

    features: Tensor  # [B, F]; zeros where a picture is shown without
    same: Tensor  # bool [B, B]: text j is true of picture i, or there is nothing to compare
    alone: Tensor  # [B]: 1 over how many pictures of the dataset have this text; 0 without


class FewFeatures:
    """Features of texts [T, F] of which hardly any are not zero: a hundred thousand captions in 100 MB."""

    def __init__(self, said: Sequence[str], encoder: TextEncoder, sign: Callable[[], None]) -> None:
        lengths: list[int] = []
        places: list[NDArray[np.int32]] = []
        values: list[NDArray[np.float32]] = []
        for first in range(0, len(said), ENCODED_AT_ONCE):
            sign()
            for row in encoder.encode(said[first : first + ENCODED_AT_ONCE]):
                (held,) = row.nonzero()
                lengths.append(len(held))
                places.append(held.astype(np.int32))
                values.append(row[held])
        self.shape = (len(said), encoder.size)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._places = np.concatenate(places)
        self._values = np.concatenate(values)

    def __getitem__(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Those of some texts, [len(numbers), F]."""
        features = np.zeros((len(numbers), self.shape[1]), dtype=np.float32)
        for row, number in zip(features, numbers, strict=True):
            mine = slice(self._starts[number], self._ends[number])
            row[self._places[mine]] = self._values[mine]
        return features


class Texts:
    """The captions and labels of a dataset's pictures: each different text once, and who has which."""

    def __init__(
        self,
        features: NDArray[np.float16] | FewFeatures,
        weights: NDArray[np.float32],
        captions: NDArray[np.int64],
        labels: NDArray[np.int64],
        said: Sequence[str],
    ) -> None:
        self.features = features  # [T + 1, F] of the T different texts, and of none
        self.weights = weights  # [F], how much each feature counts
        self.captions = captions  # [N], the number of each picture's caption, or NOTHING
        self.labels = labels  # [N]
        self.said = tuple(said)  # the T texts themselves
        had = np.concatenate([captions[captions != NOTHING], labels[labels != NOTHING]])
        self._had_by = np.bincount(had, minlength=len(said) + 1)  # [T + 1], pictures

    @classmethod
    def of(
        cls,
        captions: Sequence[str | None],
        labels: Sequence[str | None],
        encoder: TextEncoder,
        cache: Path | None = None,
        sign: Callable[[], None] = lambda: None,
    ) -> Self:
        """From a caption and a label a picture, either of which may be missing. cache: a file to keep the encoder's
        work in, for it belongs to the dataset and may have taken minutes. sign: called meanwhile, as a sign of life."""
        counted = [text for text in (*captions, *labels) if text and words(text)]
        said = sorted(set(counted))
        number = {text: place for place, text in enumerate(said)}
        # The text of no words is encoded last, where NOTHING finds it.
        hashed = encoder.id.startswith(HASHED)
        features = FewFeatures([*said, ""], encoder, sign) if hashed else _kept(said, encoder, cache, sign)
        numbers = [np.array([number.get(text or "", NOTHING) for text in texts]) for texts in (captions, labels)]
        return cls(features, feature_weights(encoder, counted), numbers[0], numbers[1], said)

    @property
    def of_pictures(self) -> list[str]:
        """The text a picture is first of all known by: its caption, else its label; "" where it has neither."""
        known = np.where(self.captions != NOTHING, self.captions, self.labels)
        return [self.said[number] if number != NOTHING else "" for number in known]

    def prompts(self, rows: NDArray[np.intp], count: int, seed: int) -> list[str]:
        """What measured pictures should show: what these rows do, in a random order, and from the first again where
        they are fewer than `count`."""
        known = self.of_pictures
        return [known[row] for row in np.resize(np.random.default_rng(seed).permutation(rows), count)]

    def sample(self, rows: NDArray[np.intp], most: int, longest: int) -> tuple[str, ...]:
        """At most that many different texts of these pictures, in a random order that is always the same."""
        known = self.of_pictures
        different = sorted({known[row] for row in rows if 0 < len(known[row]) <= longest})
        order = np.random.default_rng(0).permutation(len(different))[:most]
        return tuple(different[place] for place in order)

    def show(self, rows: NDArray[np.int64], config: TrainConfig, device: torch.device, ranks: Ranks = ALONE) -> Shown:
        """Choose for each picture (a row of the dataset) its caption, its label, or nothing, by torch's chance: as
        one process would have chosen that had all of the batch."""
        captions, labels = torch.from_numpy(self.captions[rows]), torch.from_numpy(self.labels[rows])
        chance = torch.rand(2, len(rows) * ranks.count)[:, ranks.rank :: ranks.count]
        by_label = (captions == NOTHING) | ((labels != NOTHING) & (chance[0] < config.label_share))
        chosen = torch.where(by_label, labels, captions)
        chosen[chance[1] < config.caption_dropout] = NOTHING
        features = torch.from_numpy(self.features[chosen.numpy()]).float()
        silent = chosen == NOTHING
        same = (chosen[None, :] == captions[:, None]) | (chosen[None, :] == labels[:, None])
        same |= silent[:, None] | silent[None, :] | torch.eye(len(rows), dtype=torch.bool)
        alone = torch.from_numpy(1 / np.maximum(1, self._had_by[chosen.numpy()])).float() * ~silent
        return Shown(features.to(device), same.to(device), alone.to(device))


def _kept(
    said: Sequence[str], encoder: TextEncoder, cache: Path | None, sign: Callable[[], None]
) -> NDArray[np.float16]:
    """The features of texts and of none, read from the cache where they are there."""
    wanted = (len(said) + 1, encoder.size)
    if cache is not None and cache.exists():
        kept: NDArray[np.float16] = np.load(cache, allow_pickle=False)
        if kept.shape == wanted:
            return kept
    features = np.zeros(wanted, dtype=np.float16)
    for first in range(0, len(said), ENCODED_AT_ONCE):
        sign()
        some = said[first : first + ENCODED_AT_ONCE]
        features[first : first + len(some)] = encoder.encode(some)
    if cache is not None:
        with replacing(cache) as file:
            np.save(file, features)
    return features
