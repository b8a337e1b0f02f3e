from math import cos, pi

import pytest

from models.objectives.schedules import budget_progress, cosine, learning_rate
from models.presets import preset


def test_the_learning_rate_goes_from_start_to_end_along_half_a_cosine() -> None:
    config = preset("tiny", 32)
    start, end = config.learning_rate, config.final_learning_rate
    assert learning_rate(config, 0.0) == pytest.approx(start)
    assert learning_rate(config, 0.5) == pytest.approx((start + end) / 2)
    assert learning_rate(config, 1.0) == pytest.approx(end)
    assert learning_rate(config, 0.25) == pytest.approx((start + end) / 2 + (start - end) / 2 * cos(pi / 4))


def test_a_constant_schedule_is_constant() -> None:
    assert {cosine(progress / 7, 2e-4, 2e-4) for progress in range(8)} == {2e-4}


@pytest.mark.parametrize(
    ("budget", "kimg", "minutes", "progress"),
    [
        ({"total_kimg": 10}, 2.5, 99, 0.25),
        ({"max_minutes": 10}, 99, 2.5, 0.25),
        ({"total_kimg": 10, "max_minutes": 10}, 2, 5, 0.5),
        ({"total_kimg": 10, "max_minutes": 10}, 9, 5, 0.9),
        ({"total_kimg": 10}, 11, 0, 1.0),
    ],
)
def test_progress_is_of_whichever_budget_is_spent_further(
    budget: dict[str, float], kimg: float, minutes: float, progress: float
) -> None:
    assert budget_progress(preset("tiny", 32, **budget), kimg, minutes) == pytest.approx(progress)
