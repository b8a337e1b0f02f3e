"""What to tell an artist who is about to train: which preset, why, how long it takes, and what may go wrong."""

from dataclasses import dataclass
from typing import Final

# Sheets, measurements and saved states: every few minutes in a long training, which is so much of its time ...
SNAPSHOTS_SHARE: Final = 0.02
# ... and the more often the younger it is, the first of all with what has to be worked out once.
FIRST_SNAPSHOTS_SECONDS: Final = 8.0
OVERNIGHT_MINUTES: Final = 600.0  # the longest that a good result should be waited for, where anything is quicker
FEW_PICTURES: Final = 1000  # below, keeping D from knowing the pictures by heart is what counts; above, variety
VERY_FEW_PICTURES: Final = 50
MEMORY_SHARE: Final = 0.9  # of a device's memory; the rest is the system's
SCALED_FROM: Final = 1000  # pictures that the goals below are for
SCALE_POWER: Final = 0.25  # sixteen times the pictures take twice the looks at pictures
SCALE_LIMITS: Final = (0.5, 2.0)


@dataclass(frozen=True)
class Goal:
    """Thousands of pictures shown until one sees what it becomes, and until there is little more to come."""

    first_kimg: float
    good_kimg: float


# For 1,000 pictures, by preset and resolution. What is large is there first, so that a first look hardly depends on the
# resolution; each doubling adds detail to be learnt. classic and tiny: figures of docs/adr/0006-tiny.md. few-shot: the
# paper's 400 kimg are for 256 to 1024 pixels (arXiv:2101.04775). quality: a hundredth of the paper's runs, with the
# schedules shortened to match (arXiv:2501.05441). fine-tune: shapes are there from the start, and D as well.
GOALS: Final[dict[str, dict[int, Goal]]] = {
    "classic": {32: Goal(20, 200), 64: Goal(25, 300), 128: Goal(40, 500)},
    "tiny": {32: Goal(8, 100), 64: Goal(12, 170), 128: Goal(20, 300)},
    "few-shot": {64: Goal(15, 180), 128: Goal(20, 250), 256: Goal(30, 350), 512: Goal(40, 500)},
    "quality": {32: Goal(60, 1000), 64: Goal(80, 1500), 128: Goal(100, 2500), 256: Goal(150, 4000)},
    "fine-tune": {32: Goal(4, 50), 64: Goal(5, 70), 128: Goal(8, 120), 256: Goal(12, 200), 512: Goal(15, 250)},
}
PURPOSES: Final = {
    "classic": "The textbook method, for comparison: simple, and the first to repeat itself",
    "tiny": "Made to show something soon, also without a graphics card",
    "few-shot": "Made for some tens to some hundreds of pictures",
    "quality": "The best pictures of all, of thousands of examples and with patience",
    "fine-tune": "Starts from what {base} has learnt, so that shapes are there from the first minute",
}
FINE_TUNE_RISK: Final = (
    "It paints like {base} at first and leaves that behind slowly; for pictures of quite another kind, a training of "
    "its own is better."
)
# By preset, and whether the pictures are few.
RISKS: Final = {
    ("fine-tune", True): FINE_TUNE_RISK,
    ("fine-tune", False): FINE_TUNE_RISK,
    ("classic", False): "It may settle on painting a few pictures again and again; the training's warnings tell.",
    ("few-shot", True): "What it paints stays near your {images} pictures; look at the warnings for copies.",
    ("few-shot", False): "It may show less of the variety of {images:,} pictures than a training made for many.",
    ("quality", False): "For a long while it looks worse than the others; stopped early, it has not been worth it.",
}
RISK_OF_FEW: Final = (
    "It may come to know your {images} pictures by heart: keep an earlier snapshot when the warnings speak of copies."
)
RISK_OF_MANY: Final = "Large shapes come out well; the finest detail stays soft."


def goal(preset: str, images: int, resolution: int) -> Goal:
    """How much a preset has to be shown of that many pictures."""
    least, most = SCALE_LIMITS
    scale = min(most, max(least, (images / SCALED_FROM) ** SCALE_POWER))
    base = GOALS[preset][resolution]
    return Goal(_rounded(base.first_kimg * scale), _rounded(base.good_kimg * scale))


def minutes(kimg: float, seconds_per_kimg: float) -> float:
    """How long so much training takes, its snapshots included."""
    return (kimg * seconds_per_kimg * (1 + SNAPSHOTS_SHARE) + FIRST_SNAPSHOTS_SECONDS) / 60


def advised(good_minutes: dict[str, float | None], images: int) -> str | None:
    """Which of the presets that fit, by the minutes each takes to a good result; None: that is not known yet."""
    order = ("few-shot", "tiny", "quality") if images < FEW_PICTURES else ("quality", "tiny", "few-shot")
    offered = {name: good_minutes[name] for name in order if name in good_minutes}
    if not offered:
        return next(iter(good_minutes), None)
    timed = {name: took for name, took in offered.items() if took is not None}
    for name, took in timed.items():
        if took <= OVERNIGHT_MINUTES:
            return name
    if len(timed) == len(offered):
        return min(timed, key=timed.__getitem__)
    return "tiny" if "tiny" in offered else next(iter(offered))


def why(preset: str, base: str | None, first_minutes: float | None, good_minutes: float | None) -> str:
    """What a preset is for, and what it takes here."""
    purpose = PURPOSES[preset].format(base=base)
    if first_minutes is None or good_minutes is None:
        return f"{purpose}. How long it takes here is still being measured."
    return f"{purpose}. Here: {duration(first_minutes)} to a first look, {duration(good_minutes)} to a good result."


def risk(preset: str, images: int, base: str | None) -> str:
    """What may go wrong with that many pictures."""
    if images < VERY_FEW_PICTURES and preset != "fine-tune":
        return (
            f"{images} pictures are very few: expect close variations of them. More of them help more than more time."
        )
    few = images < FEW_PICTURES
    return RISKS.get((preset, few), RISK_OF_FEW if few else RISK_OF_MANY).format(base=base, images=images)


def too_large(memory_bytes: int, device_bytes: int) -> str | None:
    """Why a training does not fit the memory there is; None: it does."""
    if memory_bytes <= MEMORY_SHARE * device_bytes:
        return None
    return (
        f"It needs {memory_bytes / 2**30:.1f} GiB of memory and there are {device_bytes / 2**30:.1f}: upload the "
        "artwork again at a smaller resolution."
    )


def duration(length_minutes: float) -> str:
    """Minutes as one says them."""
    for unit, size in (("day", 1440.0), ("hour", 60.0)):
        if length_minutes >= 1.5 * size:
            return _counted(length_minutes / size, unit)
    return _counted(max(1.0, length_minutes), "minute")


def _counted(amount: float, unit: str) -> str:
    count = round(amount)
    return f"about {count} {unit}{'s' if count != 1 else ''}"


def _rounded(kimg: float) -> float:
    return float(f"{kimg:.2g}")
