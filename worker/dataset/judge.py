"""The verdict on a picture that was decoded, and on the dataset as a whole, in plain words."""

from collections import Counter
from dataclasses import dataclass

from worker.dataset.decode_pool import Facts, Framing
from worker.dataset.store import Item
from worker.dataset.verdicts import Verdict

ODD_RATIO = 4 / 3  # of the long side to the short: beyond it a square crop loses over a quarter
ENLARGE_AT_MOST = 2  # a picture enlarged more teaches blur
SIZES = (  # (fewer than, what such a dataset is good for)
    (50, "very few: the model will mostly copy them; add more if you can"),
    (200, "enough to try; expect it to repeat itself"),
    (1_000, "a good number to train on"),
)


@dataclass(frozen=True)
class Judgement:
    """Verdict and reason; `keep` is whether the picture goes into the dataset."""

    verdict: Verdict
    reason: str
    keep: bool
    fixes: list[str]


def judge(facts: Facts, framing: Framing) -> Judgement:
    """The most telling thing about a picture, and all that was done to it."""
    short, long = sorted((facts.width, facts.height))
    side = short if framing.crop == "center" else long
    size = f"{facts.width} x {facts.height}"
    wanted = framing.resolution
    if side * ENLARGE_AT_MOST < wanted:
        reason = f"Left out: {size} would have to be enlarged more than {ENLARGE_AT_MOST} times to fill {wanted} px."
        return Judgement(Verdict.SMALL, reason, keep=False, fixes=[])
    fixes = list(facts.fixes)
    remarks: list[tuple[Verdict, str]] = []
    if side < wanted:
        remarks.append((Verdict.SMALL, f"{size}, smaller than {wanted} px: enlarged, so it will look soft"))
        fixes.append(f"enlarged from {side} px")
    if facts.animated:
        remarks.append((Verdict.ANIMATED, "an animation: its first frame was taken"))
        fixes.append("first frame taken")
    if facts.alpha:
        remarks.append((Verdict.ALPHA, "partly transparent: laid over the background"))
        fixes.append("laid over the background")
    if short != long:
        fixes.append(f"centre-cropped from {size}" if framing.crop == "center" else f"padded to a square from {size}")
    if long > short * ODD_RATIO:
        done = "only its middle was taken" if framing.crop == "center" else "the background was added beside it"
        remarks.append((Verdict.ODD_RATIO, f"{size}, far from square: {done}"))
    if facts.grey:
        remarks.append((Verdict.GREY, "without colour: kept as it is"))
    if not remarks:
        return Judgement(Verdict.OK, "Good as it is." if not fixes else "Good.", keep=True, fixes=fixes)
    reason = "; ".join(remark for _, remark in remarks)
    return Judgement(remarks[0][0], f"{reason[0].upper()}{reason[1:]}.", keep=True, fixes=fixes)


def readiness(items: list[Item], resolution: int) -> str:
    """Whether to train on this, in two sentences."""
    kept = [item for item in items if item.position is not None]
    left_out = Counter(item.verdict for item in items if item.position is None and item.verdict != Verdict.SIDECAR)
    captioned = sum(item.caption is not None for item in kept)
    labels = len({item.label for item in kept if item.label is not None})
    worth = next((words for limit, words in SIZES if len(kept) < limit), "plenty to learn from")
    with_captions = "all with captions" if captioned == len(kept) > 0 else counted(captioned, "caption")
    first = f"{counted(len(kept), 'picture')} at {resolution} px, {with_captions}, {counted(labels, 'label')}: {worth}."
    if not left_out:
        return first
    reasons = ", ".join(f"{count:,} {verdict.replace('_', ' ')}" for verdict, count in left_out.most_common())
    return f"{first} {counted(left_out.total(), 'file')} left out: {reasons}."


def counted(count: int, noun: str) -> str:
    """1 picture, 2 pictures, no pictures."""
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}" if count < 1_000 else f"{count:,} {noun}s"
