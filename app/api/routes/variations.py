"""Variations: the neighbours of a picture, and the children of two."""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from app.api import bodies, drawing, given, pictures
from app.api.deps import MayGenerate, Services, ServicesDep
from app.api.given import Known
from app.api.pictures import Order
from app.api.schemas.variations import UPLOAD_BODY, VariationFields, VariationsIn
from app.core import callers
from app.core.errors import InvalidRequest
from app.serving.point import MAX_VARIATIONS, Cross, Variation
from app.serving.recipe import Recipe, parse_size, reason_of, seeds_for
from app.serving.service import FileKind
from models.latents.variation import crossing

router = APIRouter(tags=["images"], dependencies=[MayGenerate])

NEIGHBOUR_STRENGTH: Final = 0.3
CHILD_STRENGTH: Final = 0.1  # so that children are no two alike, and still take after their parents
BODY: Final = bodies.documented(VariationsIn, UPLOAD_BODY)


@router.post("/v1/images/variations", responses=pictures.ANSWERS, openapi_extra={"requestBody": BODY})
async def vary(request: Request, services: ServicesDep) -> Response:
    """Draw neighbours of a picture, or children of two. `Accept` works as for generations."""
    wish, parents = await (_of_form if bodies.is_form(request) else _of_json)(request, services)
    accept = pictures.accepted(request)
    seeds = seeds_for(wish.seed, None, wish.n or 1)
    pictures.require_room(accept, len(seeds))
    first = parents[0]
    native = (first.served.resolution, first.served.resolution)
    size = first.recipe.size if wish.size is None else parse_size(wish.size, native)
    order = Order(
        first.served,
        FileKind(
            pictures.RAW_TYPES.get(accept) or wish.output_format or "png",
            wish.output_compression,
            wish.metadata or "full",
        ),
        [recipe.model_copy(update={"size": size}) for recipe in _drawn(parents, seeds, wish.strength)],
        keep=bool(wish.keep),
        seeds=seeds,
    )
    return await pictures.answer(request, services, order, urls=wish.response_format == "url")


async def _of_json(request: Request, services: Services) -> tuple[VariationFields, list[Known]]:
    wish: VariationsIn = given.validated(VariationsIn, await bodies.read_json(request))
    sources = wish.of if isinstance(wish.of, list) else [wish.of]
    if len(sources) not in (1, 2):
        message = f"of lists {len(sources)} pictures; give one for its neighbours, or two for their children."
        raise InvalidRequest(message, param="of")
    return wish, [await given.picture(services, source, "of") for source in sources]


async def _of_form(request: Request, services: Services) -> tuple[VariationFields, list[Known]]:
    """What OpenAI's images.create_variation sends; `model` says where a foreign picture is looked for."""
    callers.require_all_models("send pictures")
    advice = "Send a picture as the file `image`, or JSON with `of`."
    file, fields = await bodies.read_form(request, "image", advice)
    wish: VariationFields = given.validated(VariationFields, fields)
    search = given.uploaded(services, file, fields.get("model"), "image")
    return wish, [await drawing.while_connected(request, search)]


def _drawn(parents: Sequence[Known], seeds: Sequence[int], strength: float | None) -> list[Recipe]:
    if len(parents) == 1:
        far = NEIGHBOUR_STRENGTH if strength is None else strength
        return [_neighbour(parents[0].recipe, seed, far) for seed in seeds]
    far = CHILD_STRENGTH if strength is None else strength
    return [_child(parents[0], parents[1].recipe, seed, far) for seed in seeds]


def _neighbour(recipe: Recipe, seed: int, strength: float) -> Recipe:
    if len(recipe.variations) == MAX_VARIATIONS:
        message = f"It is a variation of a variation {MAX_VARIATIONS} times over already; vary one of its parents."
        raise InvalidRequest(message, code="recipe_too_deep", param="of")
    return _of_parts(recipe, variations=(*recipe.variations, Variation(seed=seed, strength=strength)))


def _child(known: Known, second: Recipe, seed: int, strength: float) -> Recipe:
    """A picture between its parents, who have been truncated themselves."""
    first = known.recipe
    if first.checkpoint != second.checkpoint:
        message = (
            f"The first is of {first.model}@{first.checkpoint[:12]} and the second of "
            f"{second.model}@{second.checkpoint[:12]}; only pictures of the same weights have children."
        )
        raise InvalidRequest(message, code="parents_differ", param="of")
    amount, layers = crossing(seed, known.num_ws)
    return _of_parts(
        first,
        seed=seed,
        truncation_psi=1.0,
        **dict.fromkeys(("truncation_cutoff", "prompt", "label", "prompt_mode", "mix", "latent")),
        cross=Cross(first=first.point(), second=second.point(), amount=amount, layers=layers),
        variations=(Variation(seed=seed, strength=strength),),
        sliders=(),
    )


def _of_parts(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe drawn like another; InvalidRequest where all of it together is too much."""
    try:
        return Recipe(**{name: getattr(recipe, name) for name in Recipe.model_fields} | changes)
    except ValidationError as error:
        message = f"This cannot be said in one recipe: {reason_of(error)}"
        raise InvalidRequest(message, code="recipe_too_deep", param="of") from error
