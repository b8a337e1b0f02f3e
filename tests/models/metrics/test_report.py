import numpy as np
from numpy.typing import NDArray

from models.metrics.report import quick_report


def discs(count: int, seed: int, *, colours: int) -> NDArray[np.uint8]:
    """Discs of random size, place and one of a few colours, on white."""
    chance = np.random.RandomState(seed)
    palette = np.random.RandomState(0).randint(0, 200, (8, 3))
    rows, columns = np.mgrid[:32, :32]
    images = np.full((count, 32, 32, 3), 255, dtype=np.uint8)
    for image in images:
        radius, top, left = chance.randint(4, 12), chance.randint(8, 24), chance.randint(8, 24)
        image[(rows - top) ** 2 + (columns - left) ** 2 < radius**2] = palette[chance.randint(colours)]
    return images


def test_pictures_of_the_same_kind_reach_the_floor_and_those_of_one_colour_do_not() -> None:
    real = discs(200, 1, colours=8)
    same, poor = quick_report(real, discs(100, 2, colours=8)), quick_report(real, discs(100, 2, colours=1))
    assert same["coverage"] > same["coverage_floor"] - 0.15
    assert poor["coverage"] < same["coverage"] - 0.2
    assert same["swd"] < 2 * same["swd_floor"]
    assert poor["swd"] > same["swd"]


def test_the_floor_does_not_depend_on_what_was_painted() -> None:
    real = discs(120, 1, colours=8)
    a, b = quick_report(real, discs(60, 2, colours=8)), quick_report(real, discs(60, 3, colours=2))
    assert (a["coverage_floor"], a["swd_floor"]) == (b["coverage_floor"], b["swd_floor"])


def test_every_measure_is_a_finite_number() -> None:
    report = quick_report(discs(40, 1, colours=8), discs(20, 2, colours=8))
    assert set(report) == {"swd", "swd_floor", "precision", "recall", "density", "coverage", "coverage_floor"}
    assert np.isfinite(list(report.values())).all()
