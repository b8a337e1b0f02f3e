"""Sliders in a URL mean what the recipe that wrote them means."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from app.api import sliding
from app.api.directory import ModelDirectory
from app.core.errors import InvalidRequest
from app.serving.point import MAX_SLIDERS, Slider
from app.serving.recipe import Recipe
from app.serving.runtime import Runtime

OFFSETS = ["a" * 64, "b" * 64]


def read(app: Any, text: str | None) -> tuple[Slider, ...]:
    async def ask() -> tuple[Slider, ...]:
        models = ModelDirectory(app.settings, app.db, app.storage, Runtime("cpu", "float32"))
        return await sliding.sliders_of_query(models, await models.resolve("tiny"), text)

    return asyncio.run(ask())


@pytest.mark.parametrize("name", ["rust", "röst & 50%", "a b+c", "日本"])
@pytest.mark.parametrize("amount", [1.5, -2.0, 0.1, 1e-7, 0.0])
def test_the_url_of_a_recipe_means_its_sliders_in_their_order(app: Any, name: str, amount: float) -> None:
    sliders = tuple(
        Slider(name=name + suffix, amount=amount, offset=OFFSETS[number]) for number, suffix in enumerate("ba")
    )
    recipe = Recipe(model="tiny", checkpoint="c" * 64, seed=1, size=(32, 32), sliders=sliders)
    (text,) = parse_qs(urlsplit(recipe.url()).query)["sliders"]
    assert read(app, text) == sliders
    assert sliding.all_pinned(text)


def test_nothing_asked_for_is_no_slider(app: Any) -> None:
    assert read(app, None) == ()
    assert sliding.all_pinned(None)
    assert not sliding.all_pinned(f"rust~{OFFSETS[0]}:1,age:2")


def test_no_more_sliders_are_read_than_a_recipe_holds(app: Any) -> None:
    one = [f"x{number}~{OFFSETS[0]}:1" for number in range(MAX_SLIDERS + 1)]
    assert len(read(app, ",".join(one[:-1]))) == MAX_SLIDERS
    with pytest.raises(InvalidRequest, match="at most 32"):
        read(app, ",".join(one))
