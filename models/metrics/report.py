"""The measures of painted pictures against real ones, beside what is possible."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.metrics.coverage import neighbourhoods
from models.metrics.features import FeatureSpace
from models.metrics.memorisation import (
    Nearest,
    Pair,
    closest_copies,
    closest_twins,
    duplicate_share,
    memorisation,
    nearest,
    nearest_of_others,
    pairs_sheet,
    split_holdout,
    very_near,
)
from models.metrics.mmd import squared_mmd
from models.metrics.swd import ProjectedReals, SlicedWasserstein

REPORT_IMAGES = 512  # of each set: seconds on a CPU, and enough for a trend
REPORT_PROJECTIONS = 128
FEWEST_MEASURED = 16  # pictures of each set; neighbourhoods and distances of fewer say nothing
MOST_SEARCHED = 4096  # training pictures; held-out ones are looked for among the same, so that the comparison is fair
MOST_HELD_OUT = 1024
EVIDENCE_PAIRS = 8


class Reals(NamedTuple):
    """The real pictures that painted ones are held against."""

    textures: ProjectedReals
    space: FeatureSpace
    points: Tensor  # [count, F]
    spacing: float  # distance within which 1% of them have another
    floors: dict[str, float]


class Originals(NamedTuple):
    """The training pictures that may have been copied."""

    rows: NDArray[np.intp]  # [T], in the dataset
    points: Tensor  # [2 * T, F]: as they are, then mirrored
    held_out: NDArray[np.float64]  # distance of every held-out picture to the nearest of them

    def nearest(self, points: Tensor) -> Nearest:
        """The nearest of them to each of points [N, F]."""
        return nearest(points, self.points)


@dataclass(frozen=True)
class Reference:
    """All that measuring needs of a dataset, prepared once: what is left to do at a snapshot takes seconds."""

    images: NDArray[np.uint8]  # the dataset, [N, R, R, C]; a memory-mapped file stays one
    rows: NDArray[np.intp]  # in the dataset, of the real pictures that painted ones are held against
    reals: Reals | None  # None: too few to say anything
    originals: Originals | None  # None: none were held out

    @property
    def count(self) -> int:
        """How many painted pictures are measured."""
        return len(self.rows)

    @classmethod
    def of(
        cls,
        images: NDArray[np.uint8],
        train_rows: NDArray[np.intp],
        holdout_rows: NDArray[np.intp],
        *,
        seed: int = 0,
        count: int = REPORT_IMAGES,
    ) -> "Reference":
        """From a dataset, uint8 [N, R, R, C], and the rows that `split_holdout` gave.

        Half of the real pictures are the reference, up to `count`; as many others tell how near real pictures come.
        """
        chance = np.random.RandomState(seed)
        train, held = _some(train_rows, MOST_SEARCHED, chance), _some(holdout_rows, MOST_HELD_OUT, chance)
        drawn = chance.permutation(np.concatenate([train, held]))
        count = min(count, len(drawn) // 2)
        if count < FEWEST_MEASURED:
            return cls(images, drawn[:0], None, None)
        rows, others = np.sort(drawn[:count]), np.sort(drawn[count : 2 * count])
        reals = _reals(images[rows], images[others], seed)
        return cls(images, rows, reals, _originals(images, train, held, reals.space) if len(held) else None)

    def measure(self, fakes: NDArray[np.uint8]) -> dict[str, float]:
        """Measures of the first `count` of painted pictures, uint8 [count or more, R, R, C], by name; none of too few.

        A measure ending in _floor is what other real pictures reach in the painted ones' place.
        """
        if self.reals is None:
            return {}
        painted = fakes[: self.count]
        points = self.reals.space.project(painted)
        near = neighbourhoods(self.reals.points, points)
        return {
            **_distances(self.reals.textures.distance(painted)),
            **near._asdict(),
            "mmd": 1e3 * squared_mmd(self.reals.points, points),
            "duplicates": duplicate_share(points, self.reals.spacing),
            **self._memorisation(points),
            **self.reals.floors,
        }

    def _memorisation(self, points: Tensor) -> dict[str, float]:
        if self.originals is None:
            return {}
        found = memorisation(self.originals.nearest(points).distances, self.originals.held_out)
        return {
            "memorisation": found.ratio,
            "memorisation_z": found.z,
            "copied": found.copied,
            "copied_chance": found.copied_chance,
        }

    def copies(self, fakes: NDArray[np.uint8], top: int = EVIDENCE_PAIRS) -> list[Pair]:
        """The painted pictures nearest to a training picture, with its row in the dataset."""
        if self.reals is None or self.originals is None:
            return []
        found = self.originals.nearest(self.reals.space.project(fakes))
        rows = self.originals.rows
        return [pair._replace(other=int(rows[pair.other])) for pair in closest_copies(found, len(rows), top)]

    def twins(self, fakes: NDArray[np.uint8], top: int = EVIDENCE_PAIRS) -> list[Pair]:
        """The painted pictures nearest to each other."""
        if self.reals is None:
            return []
        return closest_twins(nearest_of_others(self.reals.space.project(fakes)), top)

    def copies_sheet(self, fakes: NDArray[np.uint8]) -> Image.Image | None:
        """Painted pictures above the training pictures nearest to them."""
        pairs = self.copies(fakes)
        return pairs_sheet(fakes, self.images, pairs) if pairs else None

    def twins_sheet(self, fakes: NDArray[np.uint8]) -> Image.Image | None:
        """Painted pictures above the painted ones nearest to them."""
        pairs = self.twins(fakes)
        return pairs_sheet(fakes, fakes, pairs) if pairs else None


def quick_report(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], seed: int = 0, images: int = REPORT_IMAGES
) -> dict[str, float]:
    """`Reference.measure` of one set of painted pictures, both uint8 [N, R, R, C]."""
    return Reference.of(real, *split_holdout(len(real)), seed=seed, count=min(images, len(fake))).measure(fake)


def _some(rows: NDArray[np.intp], most: int, chance: np.random.RandomState) -> NDArray[np.intp]:
    """At most `most` of the rows, in order."""
    return np.sort(chance.permutation(rows)[:most])


def _reals(reference: NDArray[np.uint8], others: NDArray[np.uint8], seed: int) -> Reals:
    space = FeatureSpace.fit(reference)
    textures = ProjectedReals.of(reference, seed, REPORT_PROJECTIONS)
    points, other_points = space.project(reference), space.project(others)
    floors = {
        "swd_floor": textures.distance(others).mean,
        "coverage_floor": neighbourhoods(points, other_points).coverage,
        "mmd_floor": 1e3 * squared_mmd(points, other_points),
    }
    return Reals(textures, space, points, very_near(nearest_of_others(points).distances), floors)


def _originals(
    images: NDArray[np.uint8], train: NDArray[np.intp], held: NDArray[np.intp], space: FeatureSpace
) -> Originals:
    mirrored = images[:, :, ::-1]
    points = torch.cat([space.project(images, train), space.project(mirrored, train)])
    return Originals(train, points, nearest(space.project(images, held), points).distances)


def _distances(found: SlicedWasserstein) -> dict[str, float]:
    return {"swd": found.mean, **{f"swd_{side}": distance for side, distance in found.levels.items()}}
