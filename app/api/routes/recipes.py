"""Recipes: a file proved by rebuilding it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Annotated, TypeVar

from fastapi import APIRouter, File, UploadFile
from sqlalchemy import select
from starlette.requests import Request

from app.api import drawing
from app.api.deps import MayGenerate, Services, ServicesDep
from app.api.schemas.recipes import DifferenceOut, VerifiedOut
from app.core.errors import InvalidRequest, NotFound
from app.core.records import Checkpoint
from app.serving import verify
from app.serving.recipe import Recipe
from app.serving.verify import Difference

router = APIRouter(prefix="/v1/recipes", tags=["images"], dependencies=[MayGenerate])

Result = TypeVar("Result")


@router.post("/verify", response_model_exclude_unset=True)
async def verify_(
    file: Annotated[UploadFile, File(description="A PNG, JPEG or WebP that Ganvas made.")],
    request: Request,
    services: ServicesDep,
) -> VerifiedOut:
    """Prove a file: read the recipe in it, paint that again, and compare every pixel."""
    for name in await request.form():
        if name != "file":
            raise InvalidRequest(
                f"There is no field {name[:40]!r} here; leave it out.", code="unknown_field", param=name
            )
    recipe, difference = await _in_turn(verify.claim, file.file)
    await asyncio.to_thread(_require_known, services, recipe)
    if difference is None:
        painted = verify.to_paint(recipe, services.painter.runtime)
        asker = drawing.asker_of(request)
        (rebuilt,) = await drawing.while_connected(request, services.painter.pixels([painted], asker))
        difference = await _in_turn(verify.compare, file.file, rebuilt, recipe, painted)
    return _show(recipe, difference)


async def _in_turn(work: Callable[..., Result], *arguments: object) -> Result:
    """One file at a time, whoever asks: each may be large, and pictures that are waited for need the other cores."""
    return await asyncio.get_running_loop().run_in_executor(_thread(), work, *arguments)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "verify")


def _require_known(services: Services, recipe: Recipe) -> None:
    """Only a checkpoint of the catalogue is ever read, whatever its model is called by now."""
    with services.db.read() as session:
        found = session.scalars(
            select(Checkpoint.sha256).where(Checkpoint.sha256 == recipe.checkpoint).limit(1)
        ).first()
    if found is None:
        message = f"No weights here begin with {recipe.checkpoint[:12]}, those of {recipe.model!r} that the file names."
        raise NotFound(message, code="checkpoint_not_found", param="file")


def _show(recipe: Recipe, difference: Difference | None) -> VerifiedOut:
    shown = VerifiedOut(recipe=recipe.model_dump(mode="json"), identical=difference is None)
    if difference is not None:
        told = {name: value for name, value in asdict(difference).items() if value is not None}
        shown.difference = DifferenceOut(**told)
    return shown
