"""Pictures: OpenAI's images API, and every picture as a URL."""

from dataclasses import replace
from typing import Final

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response
from starlette.requests import Request

from app.api import conditional, documenting, drawing, given, pictures, sliding
from app.api.deps import MayGenerate, Services, ServicesDep, services_of
from app.api.directory import Served
from app.api.lean import LeanRoute
from app.api.pictures import RAW_TYPES, Order
from app.api.schemas.images import ImageQuery, ImageQueryParams, ImagesIn
from app.serving.encode import MEDIA_TYPES
from app.serving.recipe import Recipe, random_seed
from app.serving.service import FileKind

router = APIRouter(tags=["images"], dependencies=[MayGenerate])

PINNED_CACHE: Final = "public, max-age=31536000, immutable"
CURRENT_CACHE: Final = "public, max-age=5"  # seconds: a training may publish its next checkpoint at any time


@router.post("/v1/images/generations", responses=pictures.ANSWERS)
async def generate(body: ImagesIn, request: Request, services: ServicesDep) -> Response:
    """Draw pictures. `Accept: image/png` (webp, jpeg, or application/zip) gives the bytes themselves."""
    accept = pictures.accepted(request)
    served, recipes = await _wanted(body, services)
    kind = FileKind(
        RAW_TYPES.get(accept) or body.output_format or "png", body.output_compression, body.metadata or "full"
    )
    n = len(recipes) if body.best_of is None else body.n or 1
    pictures.require_room(accept, n)
    order = Order(served, kind, recipes, keep=bool(body.keep))
    if body.best_of is not None:
        # They are painted once more as the ordinary pictures they are: dear only where almost all of them are wanted.
        best = await drawing.best(request, services.painter, recipes, n)
        order = replace(order, recipes=[recipe for recipe, _ in best], matches=[match for _, match in best])
    urls, stream = body.response_format == "url", bool(body.stream)
    return await pictures.answer(request, services, order, urls=urls, stream=stream)


async def _wanted(body: ImagesIn, services: Services) -> tuple[Served, list[Recipe]]:
    """The weights to draw from, and the recipes of a request."""
    if body.recipe is None:
        served = await services.directory.resolve(body.model)
        sliders = await sliding.sliders_of(services.directory, served, body.sliders)
        return served, drawing.recipes_for(body, served, sliders)
    drawing.require_recipe_alone(body)
    found = await given.known(services, body.recipe, "recipe")
    return found.served, [found.recipe]


async def image(model: str, query: ImageQueryParams, request: Request) -> Response:
    """A picture is a URL: with the checkpoint pinned it never changes."""
    services = services_of(request)
    served = await services.directory.resolve(model)
    seed = drawing.seed_of_query(query, served)
    if seed is None or seed == -1:
        chosen = request.url.include_query_params(seed=random_seed())
        return RedirectResponse(f"{chosen.path}?{chosen.query}", 302, {"cache-control": "no-store"})
    sliders = await sliding.sliders_of_query(services.directory, served, query.sliders)
    recipe = drawing.recipe_of_query(query, served, seed, sliders)
    if not recipe.plain:
        await services.directory.require_latents(recipe.stored())
    kind = FileKind(query.format, query.compression)
    headers = {
        "etag": _etag(recipe, kind),
        "cache-control": PINNED_CACHE if served.pinned and sliding.all_pinned(query.sliders) else CURRENT_CACHE,
        "x-ganvas-recipe": recipe.canonical_json(),
        "vary": "Origin",  # or a page whose key may read it would be given what an <img> of another left in the cache
    }
    if conditional.has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    (file,) = await drawing.draw(request, services.painter, [recipe], kind)
    return Response(file, media_type=MEDIA_TYPES[query.format], headers=headers)


IMAGE_ROUTE = LeanRoute(
    "/v1/models/{model}/image",
    image,
    query=ImageQuery,
    scope="generate",
    tags=["images"],
    response_class=Response,
    responses={200: documenting.files(*RAW_TYPES), 302: {}, 304: {}},
)


def _etag(recipe: Recipe, kind: FileKind) -> str:
    """Of the bytes: other formats and qualities of one recipe are other files."""
    quality = "" if kind.compression is None or kind.output_format == "png" else f"-{kind.compression}"
    return f'"{recipe.hash()}.{kind.output_format}{quality}"'
