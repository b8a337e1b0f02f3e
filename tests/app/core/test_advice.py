"""Advice goes by how many pictures there are and how long they take here, in words without jargon."""

import pytest

from app.core import advice
from models.presets import PRESETS, preset_resolutions


def test_there_is_a_goal_for_every_preset_at_every_resolution_it_fits() -> None:
    assert set(advice.GOALS) == set(PRESETS)
    for name in PRESETS:
        assert set(advice.GOALS[name]) == set(preset_resolutions(name))
        for resolution in preset_resolutions(name):
            goal = advice.goal(name, 1000, resolution)
            assert 0 < goal.first_kimg < goal.good_kimg / 5


def test_sixteen_times_the_pictures_take_twice_the_looks_within_limits() -> None:
    thousand, many = advice.goal("tiny", 1000, 64), advice.goal("tiny", 16_000, 64)
    assert many.good_kimg == 2 * thousand.good_kimg
    assert advice.goal("tiny", 10**6, 64) == many
    assert advice.goal("tiny", 1, 64).good_kimg == thousand.good_kimg / 2


def test_minutes_are_those_of_the_steps_and_of_the_snapshots_many_early_and_few_late() -> None:
    assert advice.minutes(60, 10.0) == pytest.approx(10 * 1.02 + 8 / 60)


@pytest.mark.parametrize(
    ("minutes", "images", "expected"),
    [
        ({"tiny": 20.0, "few-shot": 40.0, "quality": 2000.0}, 120, "few-shot"),
        ({"tiny": 20.0, "few-shot": 900.0, "quality": 2000.0}, 120, "tiny"),
        ({"tiny": 20.0, "few-shot": 40.0, "quality": 2000.0}, 5000, "tiny"),
        ({"tiny": 2.0, "few-shot": 4.0, "quality": 30.0}, 5000, "quality"),
        ({"few-shot": 5000.0, "quality": 4000.0}, 5000, "quality"),
        ({"few-shot": 3000.0, "quality": 4000.0}, 5000, "few-shot"),
        ({"classic": 10.0, "tiny": 20.0}, 300, "tiny"),
        ({"classic": None, "tiny": None, "few-shot": None}, 300, "tiny"),
        ({"few-shot": None, "quality": None}, 300, "few-shot"),
        ({"classic": 10.0}, 300, "classic"),
        ({}, 300, None),
    ],
)
def test_the_advised_preset_suits_the_number_of_pictures_and_ends_overnight_where_any_does(
    minutes: dict[str, float | None], images: int, expected: str | None
) -> None:
    assert advice.advised(minutes, images) == expected


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0.2, "about 1 minute"),
        (1.4, "about 1 minute"),
        (17.6, "about 18 minutes"),
        (89, "about 89 minutes"),
        (90, "about 2 hours"),
        (600, "about 10 hours"),
        (2160, "about 2 days"),
        (14_400, "about 10 days"),
    ],
)
def test_durations_are_told_as_one_says_them(minutes: float, said: str) -> None:
    assert advice.duration(minutes) == said


def test_why_tells_the_times_once_they_are_known() -> None:
    told = advice.why("tiny", None, 3.0, 45.0)
    assert "about 3 minutes to a first look" in told
    assert "about 45 minutes to a good result" in told
    assert "still being measured" in advice.why("tiny", None, None, None)
    assert "what moths has learnt" in advice.why("fine-tune", "moths", 1.0, 2.0)


@pytest.mark.parametrize("images", [10, 300, 40_000])
def test_every_preset_has_a_risk_for_any_number_of_pictures(images: int) -> None:
    risks = {name: advice.risk(name, images, "moths") for name in PRESETS}
    assert all(told.endswith((".", "pictures.")) and "{" not in told for told in risks.values())
    assert "moths" in risks["fine-tune"]
    if images == 10:
        assert risks["tiny"].startswith("10 pictures are very few")
    if images == 300:
        assert "300 pictures by heart" in risks["tiny"]


def test_what_needs_more_memory_than_there_is_says_so_with_both_figures() -> None:
    assert advice.too_large(8 * 2**30, 16 * 2**30) is None
    told = advice.too_large(16 * 2**30, 16 * 2**30)
    assert told is not None
    assert "16.0 GiB" in told
