"""Pictures: OpenAI's images API, and every picture as a URL."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request

from app.api import drawing, errors
from app.api.deps import MayGenerate, Services, ServicesDep, services_of
from app.api.directory import Served
from app.api.lean import LeanRoute
from app.api.schemas.images import ImageQuery, ImageQueryParams, ImagesIn, ImagesOut
from app.core.errors import GanvasError, InvalidRequest
from app.serving.encode import MEDIA_TYPES
from app.serving.recipe import OutputFormat, Recipe, random_seed
from app.serving.service import FileKind

router = APIRouter(tags=["images"], dependencies=[MayGenerate])

ZIP_TYPE: Final = "application/zip"
RAW_TYPES: Final[dict[str, OutputFormat]] = {media_type: name for name, media_type in MEDIA_TYPES.items()}
PINNED_CACHE: Final = "public, max-age=31536000, immutable"
CURRENT_CACHE: Final = "public, max-age=5"  # seconds: a training may publish its next checkpoint at any time


@dataclass(frozen=True)
class Order:
    """The pictures of one request, and what its answer says of them."""

    served: Served
    kind: FileKind
    recipes: Sequence[Recipe]
    matches: Sequence[float] | None = None  # of best_of

    def each(self, index: int) -> dict[str, Any]:
        """What is said of one picture."""
        recipe = self.recipes[index]
        said = {"seed": recipe.seed, "recipe": recipe.model_dump(mode="json")}
        return said if self.matches is None else said | {"match": self.matches[index]}

    def all(self) -> dict[str, Any]:
        """What the pictures have in common."""
        recipe = self.recipes[0]
        common = {
            "model": recipe.model,
            "checkpoint": recipe.checkpoint,
            "size": f"{recipe.size[0]}x{recipe.size[1]}",
            "output_format": self.kind.output_format,
        }
        return common | drawing.told(self.served, recipe)

    def answer(self, pictures: Sequence[dict[str, Any]]) -> JSONResponse:
        """The JSON answer; each picture is its file or its URL."""
        data = [picture | self.each(index) for index, picture in enumerate(pictures)]
        return JSONResponse({"created": int(time.time()), "data": data} | self.all())

    def zip(self, files: Sequence[bytes]) -> bytes:
        """The files under their number and seed."""
        place = io.BytesIO()
        with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
            for index, (recipe, file) in enumerate(zip(self.recipes, files, strict=True)):
                archive.writestr(zipfile.ZipInfo(f"{index:02d}-{recipe.seed}.{self.kind.output_format}"), file)
        return place.getvalue()


@router.post("/v1/images/generations", responses={200: {"model": ImagesOut}})
async def generate(body: ImagesIn, request: Request, services: ServicesDep) -> Response:
    """Draw pictures. `Accept: image/png` (webp, jpeg, or application/zip) gives the bytes themselves."""
    accepted = _accepted(request)
    served = await services.directory.resolve(body.model)
    recipes = drawing.recipes_for(body, served)
    kind = FileKind(
        RAW_TYPES.get(accepted) or body.output_format or "png", body.output_compression, body.metadata or "full"
    )
    n = len(recipes) if body.best_of is None else body.n or 1
    if accepted in RAW_TYPES and n > 1:
        message = f"One answer holds one {kind.output_format} and {n} pictures were asked for"
        raise InvalidRequest(f"{message}; send Accept: {ZIP_TYPE}.", code="accept_zip", param="n")
    order = Order(served, kind, recipes)
    if body.best_of is not None:
        # They are painted once more as the ordinary pictures they are: dear only where almost all of them are wanted.
        best = await drawing.best(request, services.painter, recipes, n)
        order = Order(served, kind, [recipe for recipe, _ in best], [match for _, match in best])
    if body.stream and not accepted:
        return await _stream(request, services, order)
    if body.response_format == "url" and not accepted:
        base = str(request.base_url).rstrip("/")
        urls = [base + recipe.url(kind.output_format, kind.compression) for recipe in order.recipes]
        return order.answer([{"url": url} for url in urls])
    files = await drawing.draw(request, services.painter, order.recipes, kind)
    if accepted == ZIP_TYPE:
        return Response(order.zip(files), media_type=ZIP_TYPE)
    if accepted:
        return Response(files[0], media_type=accepted, headers={"x-ganvas-recipe": order.recipes[0].canonical_json()})
    return order.answer([{"b64_json": base64.b64encode(file).decode()} for file in files])


async def image(model: str, query: ImageQueryParams, request: Request) -> Response:
    """A picture is a URL: with the checkpoint pinned it never changes."""
    services = services_of(request)
    served = await services.directory.resolve(model)
    seed = drawing.seed_of(query.seed, query.prompt, served)
    if seed is None or seed == -1:
        chosen = request.url.include_query_params(seed=random_seed())
        return RedirectResponse(f"{chosen.path}?{chosen.query}", 302, {"cache-control": "no-store"})
    recipe = drawing.recipe_of_query(query, served, seed)
    kind = FileKind(query.format, query.compression)
    headers = {
        "etag": _etag(recipe, kind),
        "cache-control": PINNED_CACHE if served.pinned else CURRENT_CACHE,
        "x-ganvas-recipe": recipe.canonical_json(),
    }
    if _has(request, headers["etag"]):
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
    responses={200: {"content": {media_type: {} for media_type in RAW_TYPES}}, 302: {}, 304: {}},
)


def _etag(recipe: Recipe, kind: FileKind) -> str:
    """Of the bytes: other formats and qualities of one recipe are other files."""
    quality = "" if kind.compression is None or kind.output_format == "png" else f"-{kind.compression}"
    return f'"{recipe.hash()}.{kind.output_format}{quality}"'


def _accepted(request: Request) -> str:
    """The first kind of file that Accept names before JSON; "" where the client wants JSON."""
    for entry in request.headers.get("accept", "").split(","):
        media_type = entry.partition(";")[0].strip().lower()
        if media_type in RAW_TYPES or media_type == ZIP_TYPE:
            return media_type
        if media_type in {"application/json", "text/event-stream", "*/*"}:
            break
    return ""


def _has(request: Request, etag: str) -> bool:
    """Whether the client already has the file with this ETag."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in tags or tags == ["*"]


async def _stream(request: Request, services: Services, order: Order) -> Response:
    """OpenAI's event stream. It opens with the first picture, so that an early error still has its status."""
    tasks = drawing.begin(request, services.painter, order.recipes, order.kind)
    try:
        await drawing.while_connected(request, tasks[0])
    except BaseException:
        await drawing.drop(tasks)
        raise
    return EventSourceResponse(_events(order, tasks))


async def _events(order: Order, tasks: Sequence[asyncio.Task[bytes]]) -> AsyncIterator[ServerSentEvent]:
    type_ = "image_generation.completed"
    try:
        for index, task in enumerate(tasks):
            event = {
                "type": type_,
                "b64_json": base64.b64encode(await task).decode(),
                "created_at": int(time.time()),
            }
            yield ServerSentEvent(json.dumps(event | order.each(index) | order.all()), event=type_)
    except GanvasError as error:
        yield ServerSentEvent(json.dumps({"error": errors.error_object(error)}), event="error")
    finally:
        await drawing.drop(tasks)
