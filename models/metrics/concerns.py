"""What the measures of a training give cause to worry about: pictures that grow alike, or that are copies."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from models.metrics.memorisation import Memorisation

COLLAPSED_COVERAGE = 0.6  # of the best so far; chance moves coverage by a tenth at 16 pictures, a fiftieth at 512
COLLAPSED_DUPLICATES = 0.1  # of the pictures; 1% of the real ones have a twin as near
RISEN = 2.0  # times as many duplicates as at the best coverage: a dataset may be full of twins itself


class Concern(NamedTuple):
    """Something an artist should know now."""

    kind: Literal["collapse", "copying"]
    message: str


def concerns(history: Sequence[Mapping[str, float]]) -> list[Concern]:
    """About the last of a training's measurements, oldest first; each as `Reference.measure` gives it, or empty."""
    measured = [metrics for metrics in history if "coverage" in metrics]
    if not measured:
        return []
    return [*_collapse(measured), *_copying(measured[-1])]


def _collapse(measured: Sequence[Mapping[str, float]]) -> list[Concern]:
    last, best = measured[-1], max(measured, key=lambda metrics: metrics["coverage"])
    fell = last["coverage"] < COLLAPSED_COVERAGE * best["coverage"]
    rose = last["duplicates"] >= max(COLLAPSED_DUPLICATES, RISEN * best["duplicates"])
    if not (fell and rose):
        return []
    message = (
        f"The pictures grow alike: they cover {last['coverage']:.0%} of the dataset, down from {best['coverage']:.0%}, "
        f"and {last['duplicates']:.0%} have a twin. An earlier checkpoint is the better one; go on from it with a "
        "lower learning_rate or a higher penalty_gamma."
    )
    return [Concern("collapse", message)]


def _copying(last: Mapping[str, float]) -> list[Concern]:
    if "memorisation" not in last:
        return []
    found = Memorisation(
        ratio=last["memorisation"], copied=last["copied"], copied_chance=last["copied_chance"], z=last["memorisation_z"]
    )
    if not found.copying:
        return []
    message = (
        f"The pictures are nearer to the training pictures than unseen ones are: {found.ratio:.2f} times as far, and "
        f"{found.copied:.0%} are nearer than nearly any unseen one. Look at the pairs; where they are copies, take an "
        "earlier checkpoint, add pictures, or augment more."
    )
    return [Concern("copying", message)]
