"""What a request for pictures is answered with: JSON, the files themselves, or a stream, and artworks where wanted."""

import asyncio
import base64
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request

from app.api import documenting, drawing, errors, idempotency, keeping
from app.api.deps import Services
from app.api.directory import Served
from app.api.schemas.images import ImagesOut
from app.core.errors import GanvasError, InvalidRequest
from app.core.records import Artwork
from app.serving.encode import MEDIA_TYPES
from app.serving.recipe import OutputFormat, Recipe
from app.serving.service import FileKind

Told = TypeVar("Told")

ZIP_TYPE: Final = "application/zip"
GRACE_SECONDS: Final = 12.0  # for the pictures of a stream when the process stops, which waits 15 for everything
RAW_TYPES: Final[dict[str, OutputFormat]] = {media_type: name for name, media_type in MEDIA_TYPES.items()}
ANSWERS: Final[dict[int | str, dict[str, Any]]] = {  # of a route, as it is documented
    200: {"model": ImagesOut} | documenting.files(*RAW_TYPES, ZIP_TYPE, "text/event-stream")
}


@dataclass(frozen=True)
class Order:
    """The pictures of one request, and what its answer says of them."""

    served: Served
    kind: FileKind
    recipes: Sequence[Recipe]
    keep: bool = False  # as artworks
    seeds: Sequence[int] | None = None  # that tell them apart, where their recipes' do not
    matches: Sequence[float] | None = None  # of best_of

    def seed(self, index: int) -> int:
        """The seed that one picture was asked for with."""
        return self.recipes[index].seed if self.seeds is None else self.seeds[index]

    def each(self, index: int) -> dict[str, Any]:
        """What is said of one picture."""
        said = {"seed": self.seed(index), "recipe": self.recipes[index].model_dump(mode="json")}
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
            for index, file in enumerate(files):
                archive.writestr(zipfile.ZipInfo(f"{index:02d}-{self.seed(index)}.{self.kind.output_format}"), file)
        return place.getvalue()


def accepted(request: Request) -> str:
    """The first kind of file that Accept names before JSON; "" where the client wants JSON."""
    for entry in request.headers.get("accept", "").split(","):
        media_type = entry.partition(";")[0].strip().lower()
        if media_type in RAW_TYPES or media_type == ZIP_TYPE:
            return media_type
        if media_type in {"application/json", "text/event-stream", "*/*"}:
            break
    return ""


def require_room(accept: str, n: int) -> None:
    """InvalidRequest where an answer of this kind cannot hold so many pictures."""
    if accept in RAW_TYPES and n > 1:
        message = f"One answer holds one {RAW_TYPES[accept]} and {n} pictures were asked for"
        raise InvalidRequest(f"{message}; send Accept: {ZIP_TYPE}.", code="accept_zip", param="n")


async def answer(
    request: Request, services: Services, order: Order, *, urls: bool = False, stream: bool = False
) -> Response:
    """The pictures as the client wants them: raw where Accept says so, else in JSON as files or as `urls`, or as a
    `stream` of OpenAI's events. Those that are kept are drawn in any case."""
    accept = accepted(request)
    if stream and not accept:
        return await _stream(request, services, order)
    if urls and not accept and not order.keep:
        return order.answer(_urls(request, order))
    files = await drawing.draw(request, services.painter, order.recipes, order.kind)
    shown = _urls(request, order) if urls else [{"b64_json": base64.b64encode(file).decode()} for file in files]

    def tell(kept: Sequence[dict[str, str]]) -> Response:
        if not accept:
            return order.answer([picture | each for picture, each in zip(shown, kept, strict=True)])
        headers = {"x-ganvas-artwork": ", ".join(each["artwork"] for each in kept)} if order.keep else {}
        if accept == ZIP_TYPE:
            return Response(order.zip(files), media_type=ZIP_TYPE, headers=headers)
        headers["x-ganvas-recipe"] = order.recipes[0].canonical_json()
        return Response(files[0], media_type=accept, headers=headers)

    if not order.keep:
        return tell([{} for _ in files])
    return await _keep(
        services, order, order.recipes, files, lambda session, made: idempotency.kept(session, tell(_ids(made)))
    )


def _urls(request: Request, order: Order) -> list[dict[str, str]]:
    base = str(request.base_url).rstrip("/")
    return [{"url": base + recipe.url(order.kind.output_format, order.kind.compression)} for recipe in order.recipes]


async def _keep(
    services: Services,
    order: Order,
    recipes: Sequence[Recipe],
    files: Sequence[bytes],
    tell: Callable[[Session, Sequence[Artwork]], Told],
) -> Told:
    return await asyncio.to_thread(keeping.keep_pictures, services, recipes, files, order.kind.output_format, tell)


def _ids(made: Sequence[Artwork]) -> list[dict[str, str]]:
    """What is said of each picture that is kept."""
    return [{"artwork": artwork.id} for artwork in made]


async def _stream(request: Request, services: Services, order: Order) -> Response:
    """OpenAI's event stream. It opens with the first picture, so that an early error still has its status."""
    tasks = drawing.begin(request, services.painter, order.recipes, order.kind)
    try:
        await drawing.while_connected(request, tasks[0])
    except BaseException:
        await drawing.drop(tasks)
        raise
    return EventSourceResponse(_events(services, order, tasks), shutdown_grace_period=GRACE_SECONDS)


async def _events(
    services: Services, order: Order, tasks: Sequence[asyncio.Task[bytes]]
) -> AsyncIterator[ServerSentEvent]:
    type_ = "image_generation.completed"
    try:
        for index, task in enumerate(tasks):
            file = await task
            event = {"type": type_, "b64_json": base64.b64encode(file).decode(), "created_at": int(time.time())}
            kept = {}
            if order.keep:
                (kept,) = await _keep(services, order, [order.recipes[index]], [file], lambda _, made: _ids(made))
            yield ServerSentEvent(json.dumps(event | kept | order.each(index) | order.all()), event=type_)
    except GanvasError as error:
        idempotency.spoil()
        yield ServerSentEvent(json.dumps({"error": errors.error_object(error)}), event="error")
    finally:
        await drawing.drop(tasks)
