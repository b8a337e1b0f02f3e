"""What is kept of a recipe and its file: a title for people, its kind, and the job that it goes back to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core import artworks, latents
from app.core.db import Database
from app.core.records import Artwork
from app.core.storage import Storage
from app.serving.artwork import About, File, keep, title_of
from app.serving.film import FilmRecipe
from app.serving.lineage import point_hash, read
from app.serving.point import Cross, Point, Variation
from app.serving.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
CROSS = Cross(first=Point(seed=1), second=Point(seed=2), amount=0.5)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def file(storage: Storage) -> File:
    return File(storage.put(b"a file"), "image/png", (64, 48), 6)


def steps(*seeds: int) -> tuple[Variation, ...]:
    return tuple(Variation(seed=seed, strength=0.3) for seed in seeds)


def film(kind: str = "walk", **fields: Any) -> FilmRecipe:
    about = {"kind": kind, "model": "emoji", "checkpoint": "a" * 64, "size": (64, 64)}
    about |= {"fps": 24, "frames": 9, "path": "linear", "space": "w", "easing": "linear"} if kind == "walk" else {}
    return FilmRecipe(**about | {"keyframes": (Point(seed=1), Point(seed=2))} | fields)


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ({}, "emoji, seed 42"),
        ({"prompt": "a  red\ncat\0", "label": "cat"}, 'emoji, "a red cat", cat, seed 42'),
        ({"prompt": "red " * 100}, f'emoji, "{"red " * 14}red…", seed 42'),
        ({"variations": steps(7, 8)}, "emoji, seed 42, variation 8"),
        ({"cross": CROSS}, "emoji, child 42"),
        ({"cross": CROSS, "variations": steps(42)}, "emoji, child 42"),
        ({"cross": CROSS, "variations": steps(42, 9)}, "emoji, child 42, variation 9"),
        ({"latent": "b" * 64}, "emoji, projection"),
    ],
)
def test_a_picture_has_a_title_for_people(make_recipe: MakeRecipe, asked: dict[str, Any], title: str) -> None:
    assert title_of(make_recipe(42, **asked)) == title


@pytest.mark.parametrize(
    ("made", "kind", "title"),
    [
        (film(), "film", "emoji, walk of 2 keyframes"),
        (film("grid", columns=2), "sheet", "emoji, sheet of 2 keyframes"),
        (film("grid", columns=2, seeds=(5, 6, 7)), "sheet", "emoji, sheet of 3 seeds"),
        (film("grid", columns=2, keyframes=(Point(seed=1),), seeds=(5,)), "sheet", "emoji, sheet of seed 5"),
    ],
)
def test_films_and_sheets_are_told_apart(
    db: Database, storage: Storage, file: File, made: FilmRecipe, kind: str, title: str
) -> None:
    with db.begin() as session:
        kept = keep(session, storage, made, file._replace(job_id="job_1"))
    assert (kept.kind, kept.title, kept.relation, kept.point_hash) == (kind, title, made.kind, None)
    assert (kept.job_id, kept.width, kept.height) == ("job_1", 64, 48)
    assert read(kept.recipe) == made


def test_what_the_artist_says_stands_before_what_the_recipe_says(
    db: Database, storage: Storage, file: File, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe(3, prompt="a cat", variations=steps(4))
    with db.begin() as session:
        kept = keep(session, storage, recipe, file, About("My cat", ["Night"], starred=True))
    assert (kept.title, kept.starred, kept.text) == ("My cat", True, "my cat\nnight\na cat")
    assert (kept.recipe_hash, kept.point_hash, read(kept.recipe)) == (recipe.hash(), point_hash(recipe), recipe)
    with db.read() as session:
        made = artworks.descending(session, point_hash(make_recipe(3, prompt="a cat")), 9)
        assert [artwork.id for artwork in made] == [kept.id]


def test_a_projection_goes_back_to_the_job_that_found_it(
    db: Database, storage: Storage, file: File, make_recipe: MakeRecipe
) -> None:
    found = latents.store(storage, np.ones((4, 16), np.float32))
    kept: list[Artwork] = []
    with db.begin() as session:
        latents.keep(session, storage, found, (4, 16), "job_9")
        kept += [keep(session, storage, make_recipe(0, latent=name), file) for name in (found, "b" * 64)]
    assert [(artwork.relation, artwork.job_id) for artwork in kept] == [("projection", "job_9"), ("projection", None)]
