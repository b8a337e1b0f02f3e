"""Models: what there is to draw from, in the shape OpenAI's clients know."""

from fastapi import APIRouter
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import paging
from app.api.deps import MayGenerate, MayTrain, PagingDep, ServicesDep
from app.api.schemas.lists import Deleted, Page
from app.api.schemas.models import CheckpointOut, ModelOut, Promotion
from app.core import catalogue
from app.core.errors import InvalidRequest
from app.core.records import Model

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", dependencies=[MayGenerate])
def list_(services: ServicesDep, paging_: PagingDep) -> Page[ModelOut]:
    """All models."""
    with services.db.read() as session:
        return paging.page_of_rows(
            session,
            Model,
            select(Model),
            paging_,
            key=Model.name,
            created_at=Model.created_at,
            show=lambda row: _show(session, row, row.name, row.promoted),
        )


@router.get("/{model}/download", dependencies=[MayGenerate], response_class=FileResponse)
def download(model: str, services: ServicesDep) -> FileResponse:
    """The weights, a safetensors file with its configuration in the header."""
    with services.db.read() as session:
        found = catalogue.resolve(session, model)
    sha256 = found.checkpoint.sha256
    return FileResponse(
        services.storage.path(sha256),
        media_type="application/octet-stream",
        filename=f"{found.model.name}-{sha256[:12]}.safetensors",
        headers={"etag": f'"{sha256}"'},
    )


@router.post("/{model}/promote", dependencies=[MayTrain])
def promote(model: str, body: Promotion, services: ServicesDep) -> ModelOut:
    """Make these weights what the bare name means, also against a training that still runs."""
    with services.db.begin() as session:
        row = catalogue.promote(session, model, body.checkpoint)
        shown = _show(session, row, row.name, row.promoted)
    services.directory.forget()
    return shown


@router.get("/{model:path}", dependencies=[MayGenerate])
def get(model: str, services: ServicesDep) -> ModelOut:
    """One model, by `name` or `name@checkpoint`."""
    name, at, _ = model.partition("@")
    with services.db.read() as session:
        row = catalogue.find(session, name)
        meant = catalogue.resolve(session, model).checkpoint.sha256 if at else row.promoted
        return _show(session, row, model, meant)


@router.delete("/{model:path}", dependencies=[MayTrain])
def delete(model: str, services: ServicesDep) -> Deleted:
    """Forget a model with all its weights."""
    if "@" in model:
        message = "A model is deleted with all its checkpoints: leave out @ and what follows."
        raise InvalidRequest(message, code="checkpoint_not_deletable", param="model")
    with services.db.begin() as session:
        for blob in catalogue.delete(session, model):
            services.storage.delete(blob)
    services.directory.forget()
    return Deleted(id=model, object="model")


def _show(session: Session, row: Model, reference: str, meant: str | None) -> ModelOut:
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
        directions=[],
        checkpoint=meant,
        checkpoints=shown,
        metrics=next((item.metrics for item in checkpoints if item.sha256 == meant), {}),
        dataset=row.dataset,
        job=row.job_id,
        license=row.license,
    )
