"""Datasets: artwork goes in, and what became of every file comes out."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy import select
from starlette.requests import Request

from app.api import documenting, idempotency, paging, prepared, uploads
from app.api.deps import MayTrain, PagingDep, Services, ServicesDep
from app.api.schemas.datasets import DatasetFields, DatasetOut, ItemOut
from app.api.schemas.lists import Deleted, Page
from app.core import audit, blobs, datasets
from app.core.records import Dataset
from app.core.settings import MIB

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], dependencies=[MayTrain])

UPLOAD_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["name", "files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "One zip, or many pictures.",
        },
        **DatasetFields.model_json_schema()["properties"],
    },
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetOut,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_BODY}}}},
)
async def create(request: Request, services: ServicesDep) -> Response:
    """Upload artwork: one zip or many files; its preparation runs as a job."""
    with services.storage.scratch() as folder:
        folder.mkdir()
        received = await uploads.receive(
            request.headers.get("content-type", ""),
            request.stream(),
            folder,
            services.settings.max_upload_mib * MIB,
        )
        fields = _fields(received.fields)
        before = await idempotency.uploaded_before(received.fields, received.archive)
        if before is not None:
            return before
        return await asyncio.to_thread(_keep, services, fields, received.archive)


@router.get("")
def list_(services: ServicesDep, paging_: PagingDep) -> Page[DatasetOut]:
    """All datasets."""
    with services.db.read() as session:
        return paging.page_of_rows(
            session,
            Dataset,
            select(Dataset),
            paging_,
            key=Dataset.id,
            created_at=Dataset.created_at,
            show=DatasetOut.of,
        )


@router.get("/{dataset}")
def get(dataset: str, services: ServicesDep) -> DatasetOut:
    """One dataset."""
    return DatasetOut.of(_find(services, dataset))


@router.get("/{dataset}/items")
def items(
    dataset: str,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=200, description="Most entries in one answer.")] = 50,
    after: Annotated[int, Query(ge=-1, description="Items behind the one with this index.")] = -1,
    order: Annotated[paging.Order, Query(description="First sent first (asc), or last (desc).")] = "asc",
) -> Page[ItemOut]:
    """What became of every file that was sent."""
    found = _find(services, dataset)
    entries = prepared.manifest(services.storage, found).items
    if order == "desc":
        behind = entries[:after] if after >= 0 else entries
        behind = behind[::-1]
    else:
        behind = entries[after + 1 :]
    shown = [
        ItemOut(
            **entry.model_dump(),
            id=str(entry.index),
            thumbnail=None if entry.position is None else f"/v1/datasets/{found.id}/items/{entry.index}/thumbnail",
        )
        for entry in behind[:limit]
    ]
    return paging.page(shown, [entry.id for entry in shown], has_more=len(behind) > limit)


@router.get(
    "/{dataset}/items/{item}/thumbnail",
    response_class=Response,
    responses={200: documenting.files("image/png", "image/webp")},
)
def thumbnail(dataset: str, item: int, request: Request, services: ServicesDep) -> Response:
    """An item's prepared picture, as PNG, or as lossless WebP where Accept prefers that."""
    found = _find(services, dataset)
    image_format = "webp" if request.headers.get("accept", "").startswith("image/webp") else "png"
    picture = prepared.thumbnail(services.storage, found, item, image_format)
    headers = {"cache-control": "private, max-age=31536000, immutable", "vary": "Accept"}
    return Response(picture, media_type=f"image/{image_format}", headers=headers)


@router.delete("/{dataset}")
def delete(dataset: str, services: ServicesDep) -> Deleted:
    """Forget a dataset and its files; models trained on it stay."""
    with services.db.begin() as session:
        blobs.delete_unneeded(session, services.storage, datasets.delete(session, dataset))
        audit.note(session, "dataset.deleted", dataset)
    return Deleted(id=dataset, object="dataset")


def _find(services: Services, dataset: str) -> Dataset:
    with services.db.read() as session:
        return datasets.find(session, dataset)


def _fields(sent: dict[str, str]) -> DatasetFields:
    try:
        return DatasetFields.model_validate(sent)
    except ValidationError as error:
        errors = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise RequestValidationError(errors) from error


def _keep(services: Services, fields: DatasetFields, archive: Path) -> Response:
    """The blob first, then the row that names it and its job, then the bell."""
    source = services.storage.adopt(archive)
    with services.db.begin() as session:
        dataset, job = datasets.create(
            session, name=fields.name, source_sha256=source, request=fields.model_dump(exclude={"name"})
        )
        services.storage.require(source)
        answer = idempotency.made(session, DatasetOut.of(dataset), 201, location=f"/v1/datasets/{dataset.id}")
    services.dispatcher.dispatch(job)
    return answer
