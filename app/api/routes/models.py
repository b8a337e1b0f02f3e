"""Models: what there is to draw from, in the shape OpenAI's clients know."""

import asyncio
from time import perf_counter
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import documenting, idempotency, paging
from app.api.deps import MayGenerate, MayTrain, PagingDep, Services, ServicesDep
from app.api.schemas.lists import Deleted, Page
from app.api.schemas.models import CheckpointOut, MemoryOut, ModelOut, Promotion
from app.core import audit, blobs, callers, catalogue, directions
from app.core.errors import InvalidRequest
from app.core.records import Model

router = APIRouter(prefix="/v1/models", tags=["models"])

WEIGHTS_TYPE: Final = "application/octet-stream"


@router.get("", dependencies=[MayGenerate])
def list_(services: ServicesDep, paging_: PagingDep) -> Page[ModelOut]:
    """All models; with a key for one model, that one."""
    only = callers.current().model
    query = select(Model) if only is None else select(Model).where(Model.name == only)
    with services.db.read() as session:
        return paging.page_of_rows(
            session,
            Model,
            query,
            paging_,
            key=Model.name,
            created_at=Model.created_at,
            show=lambda row: show(session, row, row.name, row.promoted),
        )


@router.get(
    "/{model}/download",
    dependencies=[MayGenerate],
    response_class=FileResponse,
    responses={200: documenting.files(WEIGHTS_TYPE)},
)
def download(model: str, services: ServicesDep) -> FileResponse:
    """The weights, a safetensors file with its configuration in the header."""
    with services.db.read() as session:
        found = catalogue.resolve(session, model)
    sha256 = found.checkpoint.sha256
    return FileResponse(
        services.storage.path(sha256),
        media_type=WEIGHTS_TYPE,
        filename=f"{found.model.name}-{sha256[:12]}.safetensors",
        headers={"etag": f'"{sha256}"'},
    )


@router.post("/{model}/promote", response_model=ModelOut, dependencies=[MayTrain])
async def promote(model: str, body: Promotion, services: ServicesDep) -> Response:
    """Make these weights what the bare name means, also against a training that still runs.

    They are read into memory first, and the weights before them draw until then: nobody waits. Weights that cannot be
    read are refused.
    """
    sha256 = await asyncio.to_thread(_checkpoint, services, f"{model}@{body.checkpoint}")
    await services.painter.load(sha256)
    answer = await asyncio.to_thread(_promote, services, model, sha256)
    services.directory.forget()
    return answer


@router.post("/{model}/load", dependencies=[MayTrain])
async def load(model: str, services: ServicesDep) -> MemoryOut:
    """Read weights into memory, so that the first picture need not wait for that.

    They stay until others that are asked for more often need the room.
    """
    started = perf_counter()
    sha256 = await asyncio.to_thread(_checkpoint, services, model)
    held = await services.painter.load(sha256)
    return MemoryOut(id=model, checkpoint=sha256, loaded=True, bytes=held, seconds=perf_counter() - started)


@router.post("/{model}/unload", dependencies=[MayTrain])
async def unload(model: str, services: ServicesDep) -> MemoryOut:
    """Free the memory that weights take. They are read again when they are asked for."""
    started = perf_counter()
    sha256 = await asyncio.to_thread(_checkpoint, services, model)
    await services.painter.unload(sha256)
    return MemoryOut(id=model, checkpoint=sha256, loaded=False, bytes=0, seconds=perf_counter() - started)


@router.get("/{model:path}", dependencies=[MayGenerate])
def get(model: str, services: ServicesDep) -> ModelOut:
    """One model, by `name` or `name@checkpoint`."""
    name, at, _ = model.partition("@")
    with services.db.read() as session:
        row = catalogue.find(session, name)
        meant = catalogue.resolve(session, model).checkpoint.sha256 if at else row.promoted
        return show(session, row, model, meant)


@router.delete("/{model:path}", dependencies=[MayTrain])
async def delete(model: str, services: ServicesDep) -> Deleted:
    """Forget a model with all its weights."""
    if "@" in model:
        message = "A model is deleted with all its checkpoints: leave out @ and what follows."
        raise InvalidRequest(message, code="checkpoint_not_deletable", param="model")
    gone = await asyncio.to_thread(_delete, services, model)
    services.directory.forget()
    for blob in gone:
        await services.painter.unload(blob)
    return Deleted(id=model, object="model")


def _checkpoint(services: Services, reference: str) -> str:
    with services.db.read() as session:
        return catalogue.resolve(session, reference).checkpoint.sha256


def _promote(services: Services, model: str, sha256: str) -> Response:
    with services.db.begin() as session:
        row = catalogue.promote(session, model, sha256)
        return idempotency.made(session, show(session, row, row.name, row.promoted))


def _delete(services: Services, model: str) -> list[str]:
    """Returns the blobs that are gone with it."""
    with services.db.begin() as session:
        freed = catalogue.delete(session, model)
        blobs.delete_unneeded(session, services.storage, freed)
        audit.note(session, "model.deleted", model)
    return freed


def show(session: Session, row: Model, reference: str, meant: str | None) -> ModelOut:
    """A model as it is answered, by this name for it, with these weights of it meant."""
    checkpoints = catalogue.checkpoints(session, row.name)
    shown = [
        CheckpointOut(
            checkpoint=item.sha256, kimg=item.kimg, bytes=item.bytes, metrics=item.metrics, created_at=item.created_at
        )
        for item in checkpoints
    ]
    return ModelOut(
        id=reference,
        created=int(row.created_at.timestamp()),
        owned_by=row.owned_by,
        architecture=row.architecture,
        modality=row.modality,
        resolution=row.resolution,
        z_dim=row.z_dim,
        w_dim=row.w_dim,
        num_ws=row.num_ws,
        labels=row.labels,
        vocabulary=row.vocabulary,
        directions=[direction.name for direction in directions.of_model(session, row.name)],
        checkpoint=meant,
        checkpoints=shown,
        metrics=next((item.metrics for item in checkpoints if item.sha256 == meant), {}),
        dataset=row.dataset,
        job=row.job_id,
        license=row.license,
        parents=row.parents,
    )
