"""A recipe tells what its picture was made of, and that in turn; relatives are known whatever their size."""

from collections.abc import Callable
from typing import Any

import pytest

from app.serving import lineage
from app.serving.film import FilmRecipe
from app.serving.lineage import Edge, ancestors, family, key, parents_of, point_hash
from app.serving.point import Cross, Mix, Point, Slider, Variation
from app.serving.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
RUST = Slider(name="rust", amount=1.5, offset="b" * 64)


def steps(*seeds: int) -> tuple[Variation, ...]:
    return tuple(Variation(seed=seed, strength=0.3) for seed in seeds)


def film(kind: str = "walk", **fields: Any) -> FilmRecipe:
    points = (Point(seed=1), Point(seed=2))
    about = {"kind": kind, "model": "emoji", "checkpoint": "a" * 64, "keyframes": points, "size": (512, 512)}
    moving = {"path": "linear", "space": "w", "easing": "linear", "fps": 24, "frames": 9}
    about |= moving if kind in {"walk", "loop"} else {"columns": 8}
    return FilmRecipe(**about | fields)


def test_a_picture_of_a_seed_has_no_parents(make_recipe: MakeRecipe) -> None:
    assert parents_of(make_recipe(5, prompt="a cat", prompt_mode="hashed", truncation_cutoff=2)) is None


def test_the_parent_of_a_variation_is_the_picture_without_the_last_one(make_recipe: MakeRecipe) -> None:
    once, twice = (make_recipe(5, sliders=(RUST,), variations=steps(*seeds)) for seeds in ((7,), (7, 8)))

    assert parents_of(twice) == ("variation", (once,))
    assert parents_of(once) == ("variation", (make_recipe(5, sliders=(RUST,)),))


def test_the_parent_of_an_edit_is_the_picture_without_sliders(make_recipe: MakeRecipe) -> None:
    mixed = make_recipe(5, mix=Mix(seed=9, layers=(1,)))

    assert parents_of(mixed.model_copy(update={"sliders": (RUST,)})) == ("edit", (mixed,))


def test_a_mix_comes_of_both_pictures(make_recipe: MakeRecipe) -> None:
    told = {"prompt": "a cat", "label": "cat", "truncation_psi": 0.5}

    assert parents_of(make_recipe(5, mix=Mix(seed=9, layers=(1,)), **told)) == (
        "mix",
        (make_recipe(5, **told), make_recipe(9, **told)),
    )


def test_a_hashed_prompt_moved_only_the_first_seed_of_a_mix(make_recipe: MakeRecipe) -> None:
    told = {"prompt": "a cat", "prompt_mode": "hashed"}

    assert parents_of(make_recipe(5, mix=Mix(seed=9, layers=(1,)), **told)) == (
        "mix",
        (make_recipe(5, **told), make_recipe(9)),
    )


def test_the_parents_of_a_child_are_drawn_like_it(make_recipe: MakeRecipe) -> None:
    first, second = Point(seed=1, truncation_psi=0.5), Point(seed=2, label="cat", mix=Mix(seed=3, layers=(0,)))
    cross = Cross(first=first, second=second, amount=0.4)
    drawn: dict[str, Any] = {"size": (64, 48), "device": "cpu", "dtype": "bfloat16", "noise_mode": "none"}
    mother = make_recipe(1, truncation_psi=0.5, **drawn)
    father = make_recipe(2, label="cat", mix=Mix(seed=3, layers=(0,)), **drawn)

    for born in ((), steps(1)):
        child = make_recipe(1, cross=cross, truncation_psi=1.0, variations=born, **drawn)
        assert parents_of(child) == ("child", (mother, father))
    again = make_recipe(1, cross=cross, variations=steps(1, 2))
    assert parents_of(again) == ("variation", (make_recipe(1, cross=cross, variations=steps(1)),))


def test_a_projection_was_found_and_not_made_of_anything(make_recipe: MakeRecipe) -> None:
    assert parents_of(make_recipe(0, latent="c" * 64)) == ("projection", ())


@pytest.mark.parametrize("kind", ["walk", "loop"])
def test_the_parents_of_a_film_are_its_different_keyframes(make_recipe: MakeRecipe, kind: str) -> None:
    points = (Point(seed=1), Point(seed=2, variations=steps(4)), Point(seed=1))
    found = parents_of(film(kind=kind, keyframes=points))

    assert found is not None
    assert found.relation == kind
    assert [point_hash(parent) for parent in found.parents] == [
        point_hash(make_recipe(1)),
        point_hash(make_recipe(2, variations=steps(4))),
    ]


@pytest.mark.parametrize(
    "sheet",
    [{"kind": "grid"}, {"kind": "growth", "easing": "linear", "fps": 24, "frames": 9}],
    ids=lambda each: each["kind"],
)
def test_the_parents_of_a_sheet_are_the_pictures_on_it_by_its_last_weights_first(
    make_recipe: MakeRecipe, sheet: dict[str, Any]
) -> None:
    shown = {"keyframes": (Point(seed=0),), "checkpoints": ("b" * 64, "a" * 64)}
    found = parents_of(film(**sheet, **shown, seeds=(4, 5)))
    many = parents_of(film(**sheet, **shown, seeds=tuple(range(100))))

    assert found is not None
    assert many is not None
    assert [(parent.checkpoint[0], parent.seed) for parent in found.parents] == [("a", 4), ("a", 5), ("b", 4), ("b", 5)]
    assert [parent.seed for parent in many.parents] == list(range(lineage.MAX_PARENTS))


def test_a_sheet_of_two_models_shows_pictures_of_both(make_recipe: MakeRecipe) -> None:
    pair = film("grid", keyframes=(Point(seed=3),), checkpoints=("b" * 64, "a" * 64), models=("moss", "emoji"))
    found = parents_of(pair)

    assert found is not None
    assert [point_hash(parent) for parent in found.parents] == [
        point_hash(make_recipe(3)),
        point_hash(make_recipe(3, checkpoint="b" * 64)),
    ]
    assert [parent.model for parent in found.parents] == ["emoji", "moss"]


def test_one_picture_is_one_relative_however_it_was_drawn(make_recipe: MakeRecipe) -> None:
    picture = make_recipe(5, variations=steps(7))
    drawn = {"size": (512, 512), "device": "cuda", "dtype": "float16", "model": "renamed", "noise_mode": "none"}

    assert point_hash(picture.model_copy(update=drawn)) == point_hash(picture)
    for other in (make_recipe(5), make_recipe(5, variations=steps(8)), make_recipe(5, checkpoint="b" * 64)):
        assert point_hash(other) != point_hash(picture)


def test_ancestors_are_all_that_it_was_made_of_the_nearest_first(make_recipe: MakeRecipe) -> None:
    mother, father = Point(seed=1, variations=steps(3)), Point(seed=2)
    child = make_recipe(9, cross=Cross(first=mother, second=father, amount=0.5), variations=steps(1, 2))
    born = child.model_copy(update={"variations": steps(1)})

    expected = [born, make_recipe(1, variations=steps(3)), make_recipe(2), make_recipe(1)]
    assert ancestors(child) == [point_hash(recipe) for recipe in expected]
    assert ancestors(make_recipe(1)) == []


def test_of_an_endless_line_the_nearest_are_known(make_recipe: MakeRecipe) -> None:
    points = tuple(Point(seed=seed, variations=steps(*range(16))) for seed in range(64))

    assert len(ancestors(film(keyframes=points))) == lineage.MAX_ANCESTORS


def test_a_family_is_what_it_was_made_of_and_what_came_of_it_alone(make_recipe: MakeRecipe) -> None:
    own = make_recipe(1, variations=steps(3))
    twice = make_recipe(1, variations=steps(3, 4, 5))
    loop = film(kind="loop", keyframes=(Point(seed=1, variations=steps(3, 4)), Point(seed=8)))
    found = family(own, [twice, loop])

    root, between = make_recipe(1), make_recipe(1, variations=steps(3, 4))
    assert list(found.recipes)[:2] == [key(own), key(root)]
    assert set(found.recipes) == {key(each) for each in (own, root, between, twice, loop)}
    assert set(found.edges) == {
        Edge(key(root), key(own), "variation"),
        Edge(key(own), key(between), "variation"),
        Edge(key(between), key(twice), "variation"),
        Edge(key(between), loop.hash(), "loop"),
    }
    assert len(found.edges) == 4
    assert found.complete


def test_a_family_that_is_too_large_says_so(make_recipe: MakeRecipe) -> None:
    own = make_recipe(1)
    found = family(own, (make_recipe(1, variations=steps(seed)) for seed in range(lineage.MAX_FAMILY + 9)))

    assert len(found.recipes) == lineage.MAX_FAMILY
    assert len(found.edges) == lineage.MAX_FAMILY - 1
    assert not found.complete


def test_a_recipe_is_read_back_as_what_it_is(make_recipe: MakeRecipe) -> None:
    for recipe in (make_recipe(5, variations=steps(7)), film()):
        assert lineage.read(recipe.model_dump(mode="json")) == recipe
