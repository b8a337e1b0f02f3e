"""A film's recipe says all that its frames depend on, in one form, and nothing that contradicts itself."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.serving.film import FilmRecipe, leads_through_z, read_canonical
from app.serving.frames import frame_size
from app.serving.point import Mix, Point, Variation

TWO = (Point(seed=1), Point(seed=2))
SHA = ["a" * 64, "b" * 64, "c" * 64]
LOOP = {"path": "slerp", "space": "z", "easing": "linear", "frames": 8, "fps": 24}
GROWTH = {"checkpoints": SHA[::-1], "easing": "linear", "frames": 9, "fps": 24, "columns": 2}


def film(kind: str = "loop", **fields: Any) -> FilmRecipe:
    kinds: dict[str, dict[str, Any]] = {"loop": LOOP, "walk": LOOP, "growth": GROWTH, "grid": {"columns": 2}}
    base = {"kind": kind, "model": "m", "checkpoint": SHA[0], "keyframes": TWO, "size": (32, 32)}
    return FilmRecipe(**base | kinds[kind] | fields)


@pytest.mark.parametrize("kind", ["loop", "walk", "growth", "grid"])
def test_every_kind_reads_back_from_its_canonical_form(kind: str) -> None:
    made = film(kind)
    assert read_canonical(made.canonical_json()) == made
    assert made.canonical_json().startswith('{"checkpoint":"')
    assert made.canonical_json().endswith('"version":1}')
    assert film(kind, size=(64, 64)).hash() != made.hash()


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("loop", {"space": "w"}, "slerp does not lead through w"),
        ("loop", {"path": "spline"}, "spline does not lead through z"),
        ("loop", {"path": None}, "None does not lead"),
        ("loop", {"phase": 8}, "phase 8 is behind the last of 8 frames"),
        ("loop", {"keyframes": TWO[:1]}, "two or more"),
        ("loop", {"path": "noise"}, "noise has a radius"),
        ("loop", {"path": "noise", "radius": 1.0, "easing": None}, "round one keyframe"),
        ("walk", {"path": "noise", "radius": 1.0, "easing": None, "keyframes": TWO[:1]}, "says nothing of radius"),
        ("loop", {"radius": 1.0}, "noise has a radius"),
        ("loop", {"easing": "bouncy"}, "there is no easing 'bouncy'"),
        ("loop", {"columns": 2}, "says nothing of columns"),
        ("loop", {"checkpoints": SHA}, "says nothing of checkpoints"),
        ("loop", {"keyframes": (TWO[0], Point(seed=1, mix=Mix(seed=2, layers=(0,))))}, "no places in z"),
        ("loop", {"fps": None}, "films have fps"),
        ("walk", {"phase": 1}, "says nothing of phase"),
        ("growth", {"checkpoints": SHA[:1]}, "two or more"),
        ("growth", {"checkpoints": SHA}, "checkpoint is the last"),
        ("growth", {"columns": None}, "growths have columns"),
        ("growth", {"path": "slerp"}, "says nothing of path"),
        ("grid", {"frames": 2}, "one frame"),
        ("grid", {"checkpoints": SHA[::-1], "models": ["m", "m"]}, "one of each"),
        ("grid", {"checkpoints": SHA[::-1], "seeds": range(200)}, "at most 1024 pictures; these are 1200"),
    ],
)
def test_what_contradicts_itself_is_no_film(kind: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        film(kind, **fields)


def test_only_seeds_and_what_is_told_with_them_are_places_in_z() -> None:
    assert leads_through_z((Point(seed=1, prompt="a", truncation_psi=0.2), Point(seed=2)))
    assert not leads_through_z((Point(seed=1, truncation_cutoff=1), Point(seed=2)))
    assert not leads_through_z((Point(seed=1, variations=(Variation(seed=2, strength=0.5),)), Point(seed=2)))
    assert not leads_through_z((Point(seed=1, latent="a" * 64), Point(seed=2)))


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (film(), (32, 32)),
        (film("grid", seeds=(1, 2, 3), columns=3), (3 * 34 + 2, 2 * 34 + 2)),
        (film("grid", columns=5), (2 * 34 + 2, 34 + 2)),
        (film("grid", keyframes=TWO[:1], columns=1), (32, 32)),
        (film("growth", seeds=(1, 2, 3), columns=4), (4 * 34 + 2, 2 * 34 + 2)),
    ],
)
def test_a_sheet_is_as_large_as_its_rows(made: FilmRecipe, size: tuple[int, int]) -> None:
    assert frame_size(made) == size
