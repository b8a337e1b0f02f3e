"""The picture that a request is about, a recipe, artwork, URL or file: read, and known here before it is drawn."""

import asyncio
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from app.api import drawing, projecting, sliding
from app.api.deps import Services
from app.api.directory import Served
from app.api.schemas.images import ImageQuery
from app.core import artworks, catalogue
from app.core.errors import InvalidRequest
from app.serving import lineage
from app.serving.encode import read_recipe
from app.serving.film import AnyRecipe, FilmRecipe
from app.serving.recipe import Recipe
from app.serving.verify import to_paint

URL_OPENS: Final = "/v1/models/"
URL_ENDS: Final = "/image"


class Known(NamedTuple):
    """A picture that can be drawn here."""

    recipe: Recipe  # as it is painted here
    served: Served
    num_ws: int


async def known(services: Services, recipe: Recipe, param: str) -> Known:
    """A recipe from anyone, once all it names is known here: only weights of the catalogue and listed latents are ever
    read. What counts is the checkpoint, whatever its model is called by now. Raises NotFound."""
    model, num_ws = await asyncio.to_thread(_weights, services, recipe, param)
    served = await services.directory.resolve(f"{model}@{recipe.checkpoint}")
    await services.directory.require_latents(recipe.stored(), param)
    return Known(to_paint(recipe, served.runtime).model_copy(update={"model": model}), served, num_ws)


async def picture(services: Services, source: dict[str, Any] | str, param: str) -> Known:
    """The picture meant by a recipe, the id of an artwork, or a URL. Raises InvalidRequest, NotFound."""
    if isinstance(source, dict):
        return await known(services, recipe_of(source, param), param)
    if URL_OPENS in source:
        return await known(services, await _of_url(services, source, param), param)
    recipe = await asyncio.to_thread(_of_artwork, services, source)
    return await known(services, _still(recipe, f"Artwork {source}", param), param)


async def uploaded(services: Services, file: bytes, model: str | None, param: str) -> Known:
    """The picture in a file: its recipe where it is one of ours, else the picture of a model that comes nearest to it,
    which takes a search. Raises InvalidRequest, NotFound, Unavailable."""
    recipe = await asyncio.to_thread(_inside, file, param)
    if recipe is None:
        recipe = await projecting.found(services, file, model)
    return await known(services, recipe, param)


def recipe_of(sent: dict[str, Any], param: str) -> Recipe:
    """The recipe of a picture that was sent in a body, checked for its shape alone."""
    if "keyframes" in sent:
        raise _not_still("This recipe", str(sent.get("kind", "film"))[:20], param)
    recipe: Recipe = validated(Recipe, sent, *param.split("."))
    return recipe


def validated(schema: type[BaseModel], sent: object, *place: str) -> Any:
    """What was sent, as this; the framework's error for what is none."""
    try:
        return schema.model_validate(sent)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *place, *each["loc"])} for each in error.errors(include_url=False)]
        raise RequestValidationError(errors) from error


def _weights(services: Services, recipe: Recipe, param: str) -> tuple[str, int]:
    """The model that has a recipe's weights, and how many layers its w has."""
    with services.db.read() as session:
        model = catalogue.model_of(session, recipe.checkpoint, recipe.model, param)
        return model.name, model.num_ws


def _of_artwork(services: Services, artwork: str) -> AnyRecipe:
    with services.db.read() as session:
        return lineage.read(artworks.find(session, artwork).recipe)


async def _of_url(services: Services, url: str, param: str) -> Recipe:
    parts = urlsplit(url)
    model = unquote(parts.path.partition(URL_OPENS)[2])
    if not model.endswith(URL_ENDS):
        raise InvalidRequest(f"{url[:80]!r} is no picture's URL: it does not lead to {URL_ENDS}.", param=param)
    served = await services.directory.resolve(model.removesuffix(URL_ENDS))
    query: ImageQuery = validated(ImageQuery, dict(parse_qsl(parts.query, keep_blank_values=True)), param)
    seed = drawing.seed_of_query(query, served)
    if seed is None or seed == -1:
        raise InvalidRequest("This URL names no seed, so it is another picture each time.", param=param)
    sliders = await sliding.sliders_of_query(services.directory, served, query.sliders)
    return drawing.recipe_of_query(query, served, seed, sliders)


def _inside(file: bytes, param: str) -> Recipe | None:
    found = read_recipe(file)
    return None if found is None else _still(found, "The file", param)


def _still(recipe: AnyRecipe, what: str, param: str) -> Recipe:
    if isinstance(recipe, FilmRecipe):
        raise _not_still(what, recipe.kind, param)
    return recipe


def _not_still(what: str, kind: str, param: str) -> InvalidRequest:
    message = f"{what} is a {kind}, of many pictures; send the recipe of one of them. Each of its keyframes is one."
    return InvalidRequest(message, code="picture_expected", param=param)
