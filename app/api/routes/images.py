"""Pictures: OpenAI's images API, and every picture as a URL."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request

from app.api import drawing, errors
from app.api.deps import MayGenerate, Services, ServicesDep
from app.api.drawing import FileKind
from app.api.schemas.images import ImageQueryParams, ImagesIn, ImagesOut
from app.core.errors import GanvasError, InvalidRequest
from app.serving.encode import MEDIA_TYPES
from app.serving.recipe import OutputFormat, Recipe, random_seed

router = APIRouter(tags=["images"], dependencies=[MayGenerate])

ZIP_TYPE: Final = "application/zip"
RAW_TYPES: Final[dict[str, OutputFormat]] = {media_type: name for name, media_type in MEDIA_TYPES.items()}
PINNED_CACHE: Final = "public, max-age=31536000, immutable"
CURRENT_CACHE: Final = "public, max-age=5"  # seconds: a training may publish its next checkpoint at any time


@router.post("/v1/images/generations", responses={200: {"model": ImagesOut}})
async def generate(body: ImagesIn, request: Request, services: ServicesDep) -> Response:
    """Draw pictures. `Accept: image/png` (webp, jpeg, or application/zip) gives the bytes themselves."""
    accepted = _accepted(request)
    served = await services.directory.resolve(body.model)
    recipes = drawing.recipes_for(body, served)
    kind = FileKind(
        RAW_TYPES.get(accepted) or body.output_format or "png", body.output_compression, body.metadata or "full"
    )
    if accepted in RAW_TYPES and len(recipes) > 1:
        message = f"One answer holds one {kind.output_format} and {len(recipes)} pictures were asked for"
        raise InvalidRequest(f"{message}; send Accept: {ZIP_TYPE}.", code="accept_zip", param="n")
    if body.stream and not accepted:
        return await _stream(request, services, recipes, kind)
    if body.response_format == "url" and not accepted:
        base = str(request.base_url).rstrip("/")
        urls = [base + recipe.url(kind.output_format, kind.compression) for recipe in recipes]
        return _answer(recipes, kind, [{"url": url} for url in urls])
    files = await drawing.draw(request, services.painter, recipes, kind)
    if accepted == ZIP_TYPE:
        return Response(_zip(recipes, files, kind), media_type=ZIP_TYPE)
    if accepted:
        return Response(files[0], media_type=accepted, headers={"x-ganvas-recipe": recipes[0].canonical_json()})
    return _answer(recipes, kind, [{"b64_json": base64.b64encode(file).decode()} for file in files])


@router.get(
    "/v1/models/{model}/image",
    response_class=Response,
    responses={200: {"content": {media_type: {} for media_type in RAW_TYPES}}, 302: {}, 304: {}},
)
async def image(model: str, query: ImageQueryParams, request: Request, services: ServicesDep) -> Response:
    """A picture is a URL: with the checkpoint pinned it never changes."""
    served = await services.directory.resolve(model)
    seed = drawing.PROMPTED_SEED if query.seed is None and drawing.has_text(query.prompt) else query.seed
    if seed is None or seed == -1:
        chosen = request.url.include_query_params(seed=random_seed())
        return RedirectResponse(f"{chosen.path}?{chosen.query}", 302, {"cache-control": "no-store"})
    recipe = drawing.recipe_of_query(query, served, seed)
    headers = {"etag": f'"{recipe.hash()}"', "cache-control": PINNED_CACHE if served.pinned else CURRENT_CACHE}
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    kind = FileKind(query.format, query.compression, "full")
    (file,) = await drawing.draw(request, services.painter, [recipe], kind)
    headers["x-ganvas-recipe"] = recipe.canonical_json()
    return Response(file, media_type=MEDIA_TYPES[query.format], headers=headers)


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


def _answer(recipes: Sequence[Recipe], kind: FileKind, pictures: Sequence[dict[str, Any]]) -> JSONResponse:
    data = [
        picture | {"seed": recipe.seed, "recipe": recipe.model_dump(mode="json")}
        for recipe, picture in zip(recipes, pictures, strict=True)
    ]
    return JSONResponse({"created": int(time.time()), "data": data} | _of_all(recipes[0], kind))


def _of_all(recipe: Recipe, kind: FileKind) -> dict[str, Any]:
    """What the pictures of one request have in common."""
    common: dict[str, Any] = {
        "model": recipe.model,
        "checkpoint": recipe.checkpoint,
        "size": f"{recipe.size[0]}x{recipe.size[1]}",
        "output_format": kind.output_format,
    }
    return common if recipe.prompt_mode is None else common | {"prompt_mode": recipe.prompt_mode}


def _zip(recipes: Sequence[Recipe], files: Sequence[bytes], kind: FileKind) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for index, (recipe, file) in enumerate(zip(recipes, files, strict=True)):
            archive.writestr(zipfile.ZipInfo(f"{index:02d}-{recipe.seed}.{kind.output_format}"), file)
    return place.getvalue()


async def _stream(request: Request, services: Services, recipes: Sequence[Recipe], kind: FileKind) -> Response:
    """OpenAI's event stream. It opens with the first picture, so that an early error still has its status."""
    tasks = drawing.begin(services.painter, recipes, kind)
    try:
        await drawing.while_connected(request, tasks[0])
    except BaseException:
        await drawing.drop(tasks)
        raise
    return EventSourceResponse(_events(recipes, tasks, kind))


async def _events(
    recipes: Sequence[Recipe], tasks: Sequence[asyncio.Task[bytes]], kind: FileKind
) -> AsyncIterator[ServerSentEvent]:
    type_ = "image_generation.completed"
    try:
        for recipe, task in zip(recipes, tasks, strict=True):
            event = {
                "type": type_,
                "b64_json": base64.b64encode(await task).decode(),
                "created_at": int(time.time()),
                "seed": recipe.seed,
                "recipe": recipe.model_dump(mode="json"),
            }
            yield ServerSentEvent(json.dumps(event | _of_all(recipe, kind)), event=type_)
    except GanvasError as error:
        yield ServerSentEvent(json.dumps({"error": errors.error_object(error)}), event="error")
    finally:
        await drawing.drop(tasks)
