"""Models made elsewhere: weights come in as a file, and are published as they would be after a training."""

import asyncio
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.api import given, idempotency
from app.api.deps import MayTrain, Services, ServicesDep
from app.api.middleware import MODEL_MAX_BYTES
from app.api.multipart import Form
from app.api.routes.models import show
from app.api.schemas.models import ImportFields, ModelOut
from app.core import catalogue, names
from app.core.errors import InvalidRequest
from app.serving.importing import CheckpointMeta, checked_weights, refuse_pickle_name

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[MayTrain])

SUFFIX: Final = ".safetensors"
UPLOAD_BODY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Weights that Ganvas saved, as safetensors."},
        **ImportFields.model_json_schema()["properties"],
    },
}


@router.post(
    "",
    status_code=201,
    response_model=ModelOut,
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_BODY}}}},
)
async def import_(request: Request, services: ServicesDep) -> Response:
    """Import a model: the .safetensors that `GET /v1/models/{model}/download` gives, of this studio or another.

    Every tensor is checked before any of it is kept. Pickles (.pkl, .pt, .pth, .ckpt) are refused, for they are
    programs.
    """
    with services.storage.scratch() as folder:
        folder.mkdir()
        form = _Weights(request.headers.get("content-type", ""), folder)
        await form.receive(request.stream())
        fields: ImportFields = given.validated(ImportFields, form.fields)
        name = names.check_name(fields.name or form.own_name)
        before = await idempotency.uploaded_before({**form.fields, "name": name}, form.place)
        if before is not None:
            return before
        answer = await asyncio.to_thread(_import, services, form.place, name, fields.license)
    services.directory.forget()
    return answer


class _Weights(Form):
    """One file, in a place of its own."""

    files_field = "file"
    expected = "Send the weights as multipart/form-data: curl -F file=@model.safetensors -F name=..."
    too_large = "No preset's networks are as large."

    def __init__(self, content_type: str, folder: Path) -> None:
        super().__init__(content_type, MODEL_MAX_BYTES)
        self.place = folder / "weights"
        self.own_name = ""  # what its sender calls it

    def open_file(self, name: str) -> IO[bytes]:
        """The one place there is."""
        if self.place.exists():
            raise InvalidRequest("More than one file came; send one model at a time.", param="file")
        refuse_pickle_name(name)
        self.own_name = PurePosixPath(name.replace("\\", "/")).name.removesuffix(SUFFIX)
        return self.place.open("xb")

    def finish(self) -> None:
        """Nothing to complete; something must have come."""
        if not self.place.exists():
            raise InvalidRequest(self.expected, code="missing_field", param="file")


def _import(services: Services, place: Path, name: str, license_: str | None) -> Response:
    """Check first, then the blob, then the rows that name it."""
    with services.db.read() as session:
        names.require_free(session, name)
    meta = checked_weights(place)
    if license_ is not None and meta.license not in (None, license_):
        message = f"These weights say that their licence is {meta.license!r}; leave license out."
        raise InvalidRequest(message, param="license")
    bytes_ = place.stat().st_size
    sha256 = services.storage.adopt(place)
    with services.db.begin() as session:
        names.require_free(session, name)
        services.storage.require(sha256)
        model = _row(session, meta) | {"name": name, "license": meta.license or license_}
        row = catalogue.publish(
            session, model, sha256=sha256, kimg=meta.kimg, bytes_=bytes_, metrics=dict(meta.metrics)
        )
        return idempotency.made(session, show(session, row, name, sha256), 201, location=f"/v1/models/{name}")


def _row(session: Session, meta: CheckpointMeta) -> dict[str, Any]:
    """What a checkpoint says of its model; of its parents, those that are here."""
    here = {sha256: f"{model}@{sha256}" for model, sha256 in catalogue.weights(session, meta.parents)}
    return {
        **catalogue.row_of(meta.config.network),
        "labels": list(meta.labels),
        "vocabulary": list(meta.vocabulary),
        "dataset": meta.dataset,
        "parents": [here[sha256] for sha256 in meta.parents if sha256 in here],
    }
