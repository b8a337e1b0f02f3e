"""Recipes: a file proved by rebuilding it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from typing import BinaryIO, Final, TypeVar

from fastapi import APIRouter
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from app.api import drawing
from app.api.deps import MayGenerate, Services, ServicesDep
from app.api.schemas.recipes import UPLOAD_BODY, DifferenceOut, VerifiedOut
from app.core import catalogue
from app.core.errors import InvalidRequest
from app.serving.difference import Difference
from app.serving.encode import Pixels, resample
from app.serving.proving.claims import Claim, claim, opened, picture_bytes, require_work
from app.serving.proving.proofs import prove
from app.serving.recipe import Recipe
from app.serving.verify import compare, to_paint

router = APIRouter(prefix="/v1/recipes", tags=["images"], dependencies=[MayGenerate])

Result = TypeVar("Result")

BODY: Final = {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_BODY}}}
MAX_FIELDS: Final = 8
FIELD_MAX_BYTES: Final = 1024


@router.post("/verify", response_model_exclude_unset=True, openapi_extra={"requestBody": BODY})
async def verify(request: Request, services: ServicesDep) -> VerifiedOut:
    """Prove a file: read the recipe in it, paint that again, and compare every pixel of every frame.

    Of a zip of pictures, each is proved by its own recipe.
    """
    async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=FIELD_MAX_BYTES) as form:
        file = _file(form)
        claimed = await _in_turn(claim, file)
        await asyncio.to_thread(_require_known, services, claimed)
        await services.directory.require_latents(claimed.stored, "file")
        difference = claimed.difference or await _proved(file, claimed, request, services)
    return _show(claimed, difference)


def _file(form: FormData) -> BinaryIO:
    for name in form:
        if name != "file":
            raise InvalidRequest(
                f"There is no field {name[:40]!r} here; leave it out.", code="unknown_field", param=name[:40]
            )
    sent = form.get("file")
    if sent is None:
        message = "Send a file that Ganvas made, as multipart/form-data: curl -F file=@picture.png"
        raise InvalidRequest(message, code="missing_field", param="file")
    if not isinstance(sent, UploadFile):
        raise InvalidRequest("file is a text; send the file itself: curl -F file=@picture.png", param="file")
    return sent.file


async def _proved(file: BinaryIO, claimed: Claim, request: Request, services: Services) -> Difference | None:
    painter, asker = services.painter, drawing.asker_of(request)
    recipe = claimed.recipe
    if not isinstance(recipe, Recipe):
        work = partial(prove, file, claimed, painter.runtime)
        return await drawing.while_connected(request, painter.repaint(work, asker))
    painted = to_paint(recipe, painter.runtime)
    (rebuilt,) = await drawing.while_connected(request, painter.pixels([painted], asker))
    return await _in_turn(_compare, file, rebuilt, recipe, painted)


def _compare(file: BinaryIO, rebuilt: Pixels, recipe: Recipe, painted: Recipe) -> Difference | None:
    with opened(file) as data:
        return compare(picture_bytes(data), resample(rebuilt, recipe.size), recipe, painted)


async def _in_turn(work: Callable[..., Result], *arguments: object) -> Result:
    """One file at a time, whoever asks: each may be large, and pictures that are waited for need the other cores."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), work, *arguments)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "verify")


def _require_known(services: Services, claimed: Claim) -> None:
    """Only checkpoints of the catalogue are ever read, whatever their models are called by now."""
    largest = 0
    with services.db.read() as session:
        for sha256, name in claimed.checkpoints.items():
            largest = max(largest, catalogue.model_of(session, sha256, name, "file").resolution)
    require_work(claimed.painted, largest)


def _show(claimed: Claim, difference: Difference | None) -> VerifiedOut:
    shown = VerifiedOut(identical=difference is None)
    if claimed.recipe is not None:
        shown.recipe = claimed.recipe.model_dump(mode="json")
    if not isinstance(claimed.recipe, Recipe):
        shown.pictures = claimed.painted
    if difference is not None:
        told = {name: value for name, value in asdict(difference).items() if value is not None}
        shown.difference = DifferenceOut(**told)
    return shown
