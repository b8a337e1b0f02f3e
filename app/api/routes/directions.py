"""Directions: found by a job, shown as strips, named, scaled and ordered by the artist."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.api import documenting, drawing, idempotency, paging, sliding
from app.api.deps import MayGenerate, MayTrain, Services, ServicesDep
from app.api.layers import layers_of
from app.api.schemas.directions import DirectionIn, DirectionOut, FindIn
from app.api.schemas.images import ImageQuery, Psi
from app.api.schemas.jobs import JobOut
from app.api.schemas.lists import Deleted, Page
from app.core import audit, carrying, catalogue, directions, jobs
from app.core.catalogue import Resolved
from app.core.errors import InvalidRequest
from app.serving import strips
from app.serving.encode import Pixels, marked_png, resample
from app.serving.loader import read_meta
from app.serving.point import MAX_AMOUNT
from app.serving.recipe import Recipe
from models.latents.seeds import SEED_MAX

router = APIRouter(prefix="/v1/models/{model}/directions", tags=["directions"])

MAX_STEPS: Final = 25
MAX_STRIP_WIDTH: Final = 8192  # pixels
STRIP_CACHE: Final = "public, max-age=5"  # seconds: the artist may scale it at any time


@router.post("", status_code=202, response_model=JobOut, dependencies=[MayTrain])
def find(model: str, body: FindIn, services: ServicesDep) -> Response:
    """Find directions in these weights. What was found before and nobody named or scaled is replaced."""
    with services.db.begin() as session:
        found = catalogue.resolve(session, model)
        request = {
            "kind": carrying.KIND,
            "model": found.model.name,
            "checkpoint": found.checkpoint.sha256,
            "method": body.method,
            "count": body.count,
            "layers": None if body.layers is None else layers_of(body.layers, found.model.num_ws),
        }
        _require_possible(services, found, body)
        job = jobs.submit(session, "render", request)
        shown = JobOut.of(job, jobs.position(session, job))
        answer = idempotency.made(session, shown, 202, location=f"/v1/jobs/{job.id}")
    services.dispatcher.dispatch(job)
    return answer


def _require_possible(services: Services, found: Resolved, wish: FindIn) -> None:
    if wish.count > found.model.w_dim:
        message = f"count is {wish.count}; the w of this model has {found.model.w_dim} numbers, and no more directions."
        raise InvalidRequest(message, param="count")
    network = read_meta(services.storage.path(found.checkpoint.sha256)).config.network
    if wish.method == "pca" and network.mapping_layers == 0:
        message = "In this model w is z, which varies as much in every direction; use sefa."
        raise InvalidRequest(message, code="pca_needs_mapping", param="method")


@router.get("", dependencies=[MayGenerate])
def list_(model: str, services: ServicesDep) -> Page[DirectionOut]:
    """A model's directions in the artist's order, as the weights meant have them."""
    with services.db.read() as session:
        entries = _show(session, model)
    return paging.page(entries, [entry.id for entry in entries], has_more=False)


@router.get(
    "/{name}/strip",
    dependencies=[MayGenerate],
    response_class=Response,
    responses={200: documenting.files("image/png")},
)
async def strip(
    model: str,
    name: str,
    request: Request,
    services: ServicesDep,
    seed: Annotated[int, Query(ge=0, le=SEED_MAX, description="The picture that is changed.")] = strips.SEED,
    psi: Annotated[Psi, Query(description="Truncation.")] = 0.7,
    steps: Annotated[int, Query(ge=2, le=MAX_STEPS, description="Pictures in the strip.")] = strips.STEPS,
    reach: Annotated[
        float, Query(alias="range", gt=0, le=MAX_AMOUNT, description="From minus this amount to this.")
    ] = strips.REACH,
    size: Annotated[str | None, Query(max_length=20, description="WxH of each picture, or auto.")] = None,
) -> Response:
    """What a direction does to a picture: a row of them, a PNG."""
    served = await services.directory.resolve(model)
    if name not in served.directions:
        standing = await services.directory.directions_now(served)
        if name not in standing:
            raise directions.not_found(served.model, name, standing)
    (whole,) = await sliding.sliders_of(services.directory, served, {name: 1.0})
    plain = drawing.recipe_of_query(ImageQuery(seed=seed, psi=psi, size=size), served, seed)
    if steps * plain.size[0] > MAX_STRIP_WIDTH:
        message = f"{steps} pictures of {plain.size[0]} pixels; a strip is at most {MAX_STRIP_WIDTH} pixels wide."
        raise InvalidRequest(message, param="size")
    recipes = [
        plain.model_copy(update={"sliders": (whole.model_copy(update={"amount": amount}),)}) if amount else plain
        for amount in strips.amounts(steps, reach)
    ]
    pictures = await drawing.while_connected(request, services.painter.pixels(recipes, drawing.asker_of(request)))
    file = await asyncio.to_thread(_strip_file, pictures, plain)
    return Response(file, media_type="image/png", headers={"cache-control": STRIP_CACHE})


def _strip_file(pictures: list[Pixels], recipe: Recipe) -> bytes:
    return marked_png(strips.strip([resample(picture, recipe.size) for picture in pictures]))


@router.patch("/{name}", dependencies=[MayTrain])
async def change(model: str, name: str, body: DirectionIn, services: ServicesDep) -> DirectionOut:
    """Name, scale or move a direction. Recipes and pinned URLs keep the step they were made with."""
    shown = await asyncio.to_thread(_change, services, model, name, body)
    services.directory.forget()
    return shown


def _change(services: Services, model: str, name: str, wish: DirectionIn) -> DirectionOut:
    if wish.scale == 0:
        raise InvalidRequest("scale is 0, with which the slider leads nowhere; delete the direction.", param="scale")
    with services.db.begin() as session:
        row = directions.find(session, catalogue.resolve(session, model).model.name, name)
        if wish.name is not None:
            row = directions.rename(session, services.storage, row, wish.name)
        if wish.scale is not None:
            directions.rescale(session, services.storage, row, wish.scale)
        if wish.position is not None:
            directions.move(session, row, wish.position)
        session.flush()
        return next(entry for entry in _show(session, model) if entry.name == row.name)


@router.delete("/{name}", dependencies=[MayTrain])
async def delete(model: str, name: str, services: ServicesDep) -> Deleted:
    """Forget a direction, in all weights. Recipes and pinned URLs keep the step they were made with."""
    await asyncio.to_thread(_delete, services, model, name)
    services.directory.forget()
    return Deleted(id=name, object="direction")


def _delete(services: Services, model: str, name: str) -> None:
    with services.db.begin() as session:
        row = directions.find(session, catalogue.resolve(session, model).model.name, name)
        directions.delete(session, row)
        audit.note(session, "direction.deleted", f"{row.model_name}/{name}")


def _show(session: Session, reference: str) -> list[DirectionOut]:
    found = catalogue.resolve(session, reference)
    checkpoint = found.checkpoint.sha256
    listed = directions.in_checkpoint(session, found.model.name, checkpoint)
    return [DirectionOut.of(reference, checkpoint, *each) for each in listed]
