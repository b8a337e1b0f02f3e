"""Is it painting or copying: are painted pictures nearer to the training pictures than held-out real ones are?"""

from collections.abc import Sequence
from math import ceil, comb
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

HOLDOUT_SHARE = 0.1
FEWEST_HELD_OUT = 20  # with fewer, the nearest of them says nothing of the nearest hundredth
FEWEST_SPLIT = 60  # pictures; of fewer, an artist cannot spare FEWEST_HELD_OUT
VERY_NEAR = 0.01  # share of real pictures that are as near by chance
COPYING_Z = -3.0  # of Meehan et al.: once in 740 times by chance
COPYING_CHANCE = 0.00135  # the same, as a probability
COPYING_RATIO = 0.7  # nearer by a third is enough to see
BATCH_DISTANCES = 1 << 22  # doubles of one pass: 32 MiB
SHEET_CELL = 128  # pixels, at least, of a picture shown as evidence
SHEET_GAP = 6


class Nearest(NamedTuple):
    """Of every point, the nearest of others."""

    distances: NDArray[np.float64]  # [N]
    rows: NDArray[np.intp]  # [N]


class Pair(NamedTuple):
    """A painted picture and its nearest other, by their rows."""

    fake: int
    other: int
    distance: float
    mirrored: bool  # it is the other's mirror image that is near


class Memorisation(NamedTuple):
    """How near painted pictures are to the training pictures, beside held-out real ones."""

    ratio: float  # of the median distances; below 1, painted pictures are nearer
    copied: float  # share nearer than the nearest hundredth of the held-out ones
    copied_chance: float  # a share that chance exceeds once in 740 times
    z: float  # below 0, painted pictures are nearer; in standard deviations of chance

    @property
    def copying(self) -> bool:
        """Whether pictures are copied: many are nearer than is possible by chance, or all are nearer, and visibly so.

        z alone would count a hundredth nearer among many pictures, and the ratio alone nothing at all among few.
        """
        return self.copied > self.copied_chance or (self.z <= COPYING_Z and self.ratio <= COPYING_RATIO)


def split_holdout(count: int, seed: int = 0) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of `count` pictures to train on and rows to hold out, each ascending; none held out of fewer than 60.

    Leave `seed` as it is for every training on a dataset: one that starts from another's weights would otherwise be
    tested with pictures that those weights were trained on.
    """
    held = 0 if count < FEWEST_SPLIT else max(FEWEST_HELD_OUT, round(HOLDOUT_SHARE * count))
    drawn = np.random.RandomState(seed).permutation(count)
    return np.sort(drawn[held:]), np.sort(drawn[:held])


def nearest(points: Tensor, others: Tensor) -> Nearest:
    """The nearest of others [M, F] to each of points [N, F]; of nearly equal ones, any."""
    points, others = points.double(), others.double()
    size = max(1, BATCH_DISTANCES // len(others))
    batches = (points[start : start + size] for start in range(0, len(points), size))
    found = [torch.cdist(batch, others).min(dim=1) for batch in batches]
    distances, rows = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return Nearest(distances, rows)


def nearest_of_others(points: Tensor) -> Nearest:
    """The nearest other point to each of points [N, F], N above 1."""
    distances, rows = torch.cdist(points.double(), points.double()).fill_diagonal_(torch.inf).min(dim=1)
    return Nearest(distances.numpy(), rows.numpy())


def memorisation(fake: NDArray[np.float64], holdout: NDArray[np.float64]) -> Memorisation:
    """From distances to the nearest training picture: of painted pictures [K], and of held-out real ones [M]."""
    tiny = 1e-9  # keeps the ratio a number where most of a dataset is there twice
    return Memorisation(
        ratio=float((np.median(fake) + tiny) / (np.median(holdout) + tiny)),
        copied=float((fake < very_near(holdout)).mean()),
        copied_chance=copied_by_chance(len(fake), len(holdout)),
        z=mann_whitney_z(fake, holdout),
    )


def mann_whitney_z(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """How much larger a [N] is than b [M], in standard deviations of chance: C_T of Meehan et al., arXiv:2004.05675.

    U counts the pairs with a above b, ties for half. Its deviation is that without ties, which make it smaller: with
    them z errs towards 0.
    """
    ordered, n, m = np.sort(b), len(a), len(b)
    u = (np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")).sum() / 2
    return float((u - n * m / 2) / np.sqrt(n * m * (n + m + 1) / 12))


def very_near(distances: NDArray[np.float64]) -> float:
    """The distance that one in a hundred of real pictures [M] has to its nearest other."""
    return float(np.quantile(distances, VERY_NEAR, method="inverted_cdf"))


def copied_by_chance(fakes: int, held_out: int) -> float:
    """The share of painted pictures below the held-out ones' first percentile that chance exceeds once in 740 times.

    Where none is a copy, all of the pictures in the order of their distances are drawn from one urn: more than `count`
    painted ones come before the held-out one of that rank when fewer held-out ones are among the first count + rank.
    """
    rank = ceil(VERY_NEAR * held_out)
    for count in range(fakes):
        first = count + rank
        ways = sum(comb(held_out, held) * comb(fakes, first - held) for held in range(rank))
        if ways / comb(fakes + held_out, first) <= COPYING_CHANCE:
            return count / fakes
    return 1.0


def duplicate_share(points: Tensor, near: float) -> float:
    """Share of painted pictures [N, F] with another within `near`: `very_near` of as many real ones gives 1% there."""
    return float((nearest_of_others(points).distances < near).mean())


def closest_copies(found: Nearest, originals: int, top: int) -> list[Pair]:
    """The painted pictures nearest to a training picture, given as `originals` rows and then their mirror images."""
    pairs = []
    for fake in map(int, np.argsort(found.distances, kind="stable")[:top]):
        row = int(found.rows[fake])
        pairs.append(Pair(fake, row % originals, float(found.distances[fake]), mirrored=row >= originals))
    return pairs


def closest_twins(found: Nearest, top: int) -> list[Pair]:
    """The painted pictures nearest to another painted one, each couple once."""
    couples: dict[frozenset[int], Pair] = {}
    for fake in map(int, np.argsort(found.distances, kind="stable")):
        other = int(found.rows[fake])
        couples.setdefault(frozenset((fake, other)), Pair(fake, other, float(found.distances[fake]), mirrored=False))
    return list(couples.values())[:top]


def pairs_sheet(fakes: NDArray[np.uint8], others: NDArray[np.uint8], pairs: Sequence[Pair]) -> Image.Image:
    """The evidence: painted pictures [K, R, R, C] in a row, each above its nearest of others [N, R, R, C], on white."""
    scale = max(1, SHEET_CELL // fakes.shape[1])
    step = fakes.shape[1] * scale + SHEET_GAP
    sheet = Image.new("RGB", (len(pairs) * step + SHEET_GAP, 2 * step + SHEET_GAP), "white")
    for column, pair in enumerate(pairs):
        other = others[pair.other][:, ::-1] if pair.mirrored else others[pair.other]
        for row, picture in enumerate((fakes[pair.fake], other)):
            sheet.paste(_enlarged(picture, scale), (SHEET_GAP + column * step, SHEET_GAP + row * step))
    return sheet


def _enlarged(picture: NDArray[np.uint8], scale: int) -> Image.Image:
    """uint8 [H, W, C], C 1 or 3, with every pixel `scale` times as large."""
    pixels = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels))
