"""A point says which w a picture has: what it may say, and what it must not."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from app.serving.film import FilmRecipe, read_canonical
from app.serving.point import MAX_POINTS, Cross, Mix, Point, Slider, Variation
from app.serving.recipe import Recipe

STORED, OTHER = "b" * 64, "c" * 64


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"model": "emoji", "checkpoint": "a" * 64, "seed": 3, "size": (64, 64)} | fields)


RICH = {
    "cross": Cross(
        first=Point(seed=1, prompt='a "version":1}', truncation_psi=0.5),
        second=Point(seed=2, latent=None, variations=(Variation(seed=9, strength=0.5),)),
        amount=0.25,
        layers=(1, 2),
    ),
    "variations": (Variation(seed=7, strength=0.125),),
    "sliders": (Slider(name="warm light", amount=-1.5, offset=STORED),),
}


def test_a_recipe_of_the_first_kind_keeps_its_canonical_form_and_so_its_hash() -> None:
    assert recipe().canonical_json() == (
        '{"checkpoint":"' + "a" * 64 + '","label":null,"mix":null,"model":"emoji","noise_mode":"const","prompt":null,'
        '"prompt_mode":null,"seed":3,"size":[64,64],"truncation_cutoff":null,"truncation_psi":0.7,"version":1}'
    )


@pytest.mark.parametrize("fields", [{}, {"latent": STORED}, {"mix": Mix(seed=1, layers=(0,))}, RICH], ids=str)
def test_the_canonical_form_says_everything_and_opens_and_ends_as_readers_look_for(fields: dict[str, Any]) -> None:
    said = recipe(**fields)
    text = said.canonical_json()
    assert read_canonical(text) == said
    assert text.startswith('{"checkpoint":"')
    assert text.index('"version":1}') == len(text) - len('"version":1}')


def test_equal_recipes_have_equal_hashes_and_others_do_not() -> None:
    assert recipe(**RICH).hash() == Recipe.model_validate_json(recipe(**RICH).canonical_json()).hash()
    others = [recipe(), recipe(**RICH), recipe(latent=STORED), recipe(latent=OTHER)]
    others += [recipe(**{name: RICH[name]}) for name in RICH]
    assert len({each.hash() for each in others}) == len(others)


def test_what_is_stored_is_named_wherever_it_stands() -> None:
    inside = Cross(first=Point(seed=1, latent=OTHER), second=Point(seed=2), amount=1.0)
    assert recipe(cross=inside, sliders=RICH["sliders"]).stored() == {STORED, OTHER}
    assert recipe().stored() == frozenset()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"latent": STORED, "cross": RICH["cross"]}, "not both"),
        ({"latent": STORED, "prompt": "a cat"}, "another start"),
        ({"cross": RICH["cross"], "mix": Mix(seed=1, layers=(0,))}, "mixed into the points"),
        ({"latent": "b" * 63}, "latent"),
        ({"variations": [{"seed": 1, "strength": 1.5}]}, "strength"),
        ({"variations": [{"seed": 1, "strength": 0.1}] * 17}, "variations"),
        ({"sliders": [{"name": "a:b", "amount": 1, "offset": STORED}]}, "name"),
        ({"sliders": [{"name": "rust", "amount": float("nan"), "offset": STORED}]}, "amount"),
        ({"sliders": [{"name": "rust", "amount": 21, "offset": STORED}]}, "amount"),
    ],
)
def test_a_point_of_no_sense_is_refused(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        recipe(**fields)


def test_a_family_has_an_end() -> None:
    deep: dict[str, Any] = {"seed": 0}
    for seed in range(MAX_POINTS // 2):
        deep = {"seed": 0, "cross": {"first": deep, "second": {"seed": seed}, "amount": 0.5}}
    with pytest.raises(ValidationError, match="made of more than"):
        Point.model_validate(deep)
    assert Point.model_validate(deep["cross"]["first"]).cross is not None


def test_json_of_any_depth_is_refused_before_it_costs_anything() -> None:
    opening = '{"seed":0,"cross":{"amount":0.5,"second":{"seed":1},"first":'
    text = '{"checkpoint":"' + "a" * 64 + '","cross":' + opening * 5000 + "0" + "}}" * 5000 + ',"version":1}'
    assert read_canonical(text) is None


def test_only_the_canonical_form_is_read() -> None:
    text = recipe(**RICH).canonical_json()
    fields = json.loads(text)
    for other in (
        text.replace('"seed":3', '"seed":3,"seed":3'),
        text.replace('"seed":3', '"seed": 3'),
        text.replace('"amount":0.25', '"amount":0.250'),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")),
        text + text,
    ):
        assert read_canonical(other) is None
    assert read_canonical(text) == recipe(**RICH)


def test_a_film_reads_back_and_opens_and_ends_as_a_picture_does() -> None:
    film = FilmRecipe(
        kind="loop",
        model="emoji",
        checkpoint="a" * 64,
        keyframes=(Point(seed=1, prompt='"keyframes":'), Point(**RICH, seed=2)),
        path="spline",
        space="w",
        easing="linear",
        frames=96,
        fps=24,
        size=(64, 64),
    )
    text = film.canonical_json()
    assert read_canonical(text) == film
    assert text.startswith('{"checkpoint":"')
    assert text.endswith('"version":1}')
    assert film.stored() == {STORED}
    assert json.loads(text)["keyframes"][0] == {"prompt": '"keyframes":', "seed": 1, "truncation_psi": 0.7}
    assert isinstance(read_canonical(recipe(prompt='"keyframes":').canonical_json()), Recipe)
