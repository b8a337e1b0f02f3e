import pytest

from models.metrics.best import is_better


def measured(swd: float, coverage: float) -> dict[str, float]:
    return {"swd": swd, "coverage": coverage, "coverage_floor": 1.0}


@pytest.mark.parametrize(
    ("new", "best", "better"),
    [
        (measured(10, 0.9), measured(12, 0.9), True),
        (measured(12, 0.9), measured(10, 0.9), False),
        (measured(10, 0.7), measured(12, 0.9), False),  # nearer, but a collapse
        (measured(30, 0.9), measured(12, 0.7), True),
        (measured(10, 0.5), measured(12, 0.7), True),  # where none covers enough, the nearer
        (measured(10, 0.9), measured(10, 0.9), True),  # equals: the later
        ({}, measured(10, 0.1), False),
        (measured(99, 0.1), {}, True),
        ({}, {}, True),  # of unmeasured ones, the later
        ({}, None, True),
        (measured(99, 0.1), None, True),
    ],
)
def test_the_nearest_of_those_that_cover_enough_is_the_best(
    new: dict[str, float], best: dict[str, float] | None, better: bool
) -> None:
    assert is_better(new, best) is better


def test_enough_is_counted_from_what_real_pictures_cover() -> None:
    small = {"swd": 10.0, "coverage": 0.5, "coverage_floor": 0.6}
    assert is_better(small, measured(12, 0.9))
