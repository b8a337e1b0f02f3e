import pytest

from models.metrics.concerns import concerns


def measured(coverage: float, duplicates: float = 0.01, **others: float) -> dict[str, float]:
    fine = {"memorisation": 1.1, "memorisation_z": 2.0, "copied": 0.01, "copied_chance": 0.08}
    return {"coverage": coverage, "duplicates": duplicates, **fine, **others}


def kinds(*history: dict[str, float]) -> list[str]:
    return [concern.kind for concern in concerns(history)]


def test_a_training_that_goes_well_gives_no_cause() -> None:
    assert kinds() == []
    assert kinds({}) == []
    assert kinds(measured(0.1, 0.9), {}, measured(0.5, 0.2), measured(0.9), measured(0.85)) == []


def test_coverage_that_falls_while_twins_appear_is_a_collapse() -> None:
    assert kinds(measured(0.5), measured(0.85), measured(0.3, 0.4)) == ["collapse"]
    assert kinds(measured(0.5), measured(0.85), measured(0.3, 0.4), {}) == ["collapse"]


@pytest.mark.parametrize(
    "last",
    [
        measured(0.3, 0.05),  # different pictures, but bad ones
        measured(0.6, 0.4),  # still most of what was covered
    ],
)
def test_either_alone_is_none(last: dict[str, float]) -> None:
    assert kinds(measured(0.85), last) == []


def test_a_dataset_full_of_twins_is_no_collapse() -> None:
    assert kinds(measured(0.85, 0.3), measured(0.4, 0.4)) == []
    assert kinds(measured(0.85, 0.3), measured(0.4, 0.7)) == ["collapse"]


def test_a_collapse_that_was_overcome_is_none() -> None:
    assert kinds(measured(0.85), measured(0.2, 0.9), measured(0.8, 0.02)) == []


@pytest.mark.parametrize(
    ("evidence", "copying"),
    [
        ({"memorisation": 0.5, "memorisation_z": -6.0}, True),
        ({"memorisation": 0.5, "memorisation_z": -2.0}, False),  # too few to tell
        ({"memorisation": 0.95, "memorisation_z": -6.0}, False),  # certain, and nothing to see
        ({"copied": 0.2}, True),
        ({"copied": 0.2, "copied_chance": 0.28}, False),
    ],
)
def test_copying_is_told_by_evidence_that_is_certain_and_visible(evidence: dict[str, float], copying: bool) -> None:
    assert kinds(measured(0.9, **evidence)) == (["copying"] if copying else [])


def test_without_held_out_pictures_copying_cannot_be_told() -> None:
    assert kinds({"coverage": 0.9, "duplicates": 0.0}) == []


def test_the_message_has_the_figures() -> None:
    (concern,) = concerns([measured(0.85), measured(0.31, 0.42)])
    assert "31%" in concern.message
    assert "85%" in concern.message
    assert "42%" in concern.message
