from math import cos, pi, sqrt
from typing import Any

import pytest

from models.objectives.schedules import adam_beta2, budget_progress, cosine, learning_rate, penalty_gamma
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


def test_beta2_and_gamma_go_to_their_ends_along_the_same_curve() -> None:
    config = preset("tiny", 32, adam_beta2=0.9, final_adam_beta2=0.99, penalty_gamma=2.0, final_penalty_gamma=0.2)
    for progress, way in ((0.0, 0.0), (0.25, (1 - sqrt(0.5)) / 2), (0.5, 0.5), (1.0, 1.0)):
        assert adam_beta2(config, progress) == pytest.approx(0.9 + 0.09 * way)
        assert penalty_gamma(config, progress) == pytest.approx(2.0 - 1.8 * way)


def test_beta2_and_gamma_without_an_end_stay() -> None:
    config = preset("tiny", 32, adam_beta2=0.97, penalty_gamma=2.0)
    assert {adam_beta2(config, progress / 7) for progress in range(8)} == {0.97}
    assert {penalty_gamma(config, progress / 7) for progress in range(8)} == {2.0}


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
    budget: dict[str, Any], kimg: float, minutes: float, progress: float
) -> None:
    assert budget_progress(preset("tiny", 32, **budget), kimg, minutes) == pytest.approx(progress)
