"""What each figure of a report means, in words."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Meaning(NamedTuple):
    """A figure's name in the report, its title, what it says, and what real pictures reach in its place."""

    name: str
    title: str
    says: str
    real: float | None = None  # where that follows from how it is defined; None: it is measured, or not known


MEANINGS = (
    Meaning(
        "swd",
        "Distance",
        "How much the pictures' shapes and textures differ from those of the dataset, at all sizes together (sliced "
        "Wasserstein distance). Lower is better; real pictures are not at 0 from each other either.",
    ),
    Meaning(
        "coverage",
        "Coverage",
        "Share of the dataset's pictures that have a painted one near them: is every kind there? Higher is better.",
    ),
    Meaning(
        "recall", "Recall", "The same, asked from the other side, and stricter about rare kinds. Higher is better."
    ),
    Meaning("precision", "Precision", "Share of the painted pictures that lie near a real one. Higher is better."),
    Meaning(
        "density",
        "Density",
        "How thickly real pictures lie around the painted ones. Far above 1, common kinds are painted too often.",
        1.0,
    ),
    Meaning(
        "mmd",
        "Discrepancy",
        "How far colours, layout and outlines are from the dataset's on the whole (maximum mean discrepancy). Lower is "
        "better, and around 0 there is no telling the two apart.",
    ),
    Meaning(
        "memorisation",
        "Distance to the training pictures",
        "Over that of real pictures which the training never saw. Below 1 the painted ones are nearer; far below, they "
        "are copies.",
        1.0,
    ),
    Meaning(
        "memorisation_z",
        "Its certainty",
        "The same in standard deviations of chance. Below -3 the nearness is real, be it large or small.",
        0.0,
    ),
    Meaning(
        "copied",
        "Copied",
        "Share of the pictures that are nearer to a training picture than nearly all unseen real ones.",
        0.01,
    ),
    Meaning(
        "copied_chance",
        "Copied by chance",
        "The share up to which so few unseen pictures can be mistaken; above it, pictures are copied.",
    ),
    Meaning("duplicates", "Twins", "Share of the painted pictures with another one nearly the same.", 0.01),
    Meaning("kid", "KID", "Discrepancy as a network trained on photographs sees it. Lower is better.", 0.0),
    Meaning("fid", "FID", "The same by means and covariances; to be compared at equal numbers of pictures only."),
)
LEVEL = "swd_"  # and the side in pixels


def meanings(final: Mapping[str, float]) -> Iterator[Meaning]:
    """Of the figures that are there, the distance's levels after it, coarse to fine."""
    for meaning in MEANINGS:
        if meaning.name in final:
            yield meaning
        if meaning.name == "swd":
            sides = sorted(int(name.removeprefix(LEVEL)) for name in final if name.removeprefix(LEVEL).isdigit())
            yield from (_level(side, coarsest=side == sides[0]) for side in sides)


def _level(side: int, *, coarsest: bool) -> Meaning:
    says = (
        "Layout and large shapes."
        if coarsest
        else f"What shows at {side} pixels and not below: the finer, the sharper."
    )
    return Meaning(f"{LEVEL}{side}", f"Distance at {side} px", says)
