"""Blending: a new model whose layers come from one checkpoint, from another, or from in between."""

from typing import Any

from sqlalchemy.orm import Session

from app.core import catalogue, jobs
from app.core.errors import InvalidRequest
from app.core.records import Job
from models.blending import Parent, blend
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.errors import ModelsError
from models.kinship import KIN, kinship
from worker.rendering import networks
from worker.rendering.engine import Stopped
from worker.rendering.publish import Workplace


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Blend as the job asks, and publish the new model with its parents. Raises Stopped, with nothing published."""
    request = claim.request
    first, second = (_parent(workshop, request[which]) for which in ("first", "second"))
    _require_kin(request, first, second)
    try:
        generator, meta = blend(first, second, request["amounts"], request["mapping"])
    except ModelsError as error:
        raise InvalidRequest(str(error), code="blend_does_not_fit", param="with") from error
    if claim.should_stop():
        raise Stopped
    data = save_checkpoint(None, generator, meta)
    sha256 = workshop.storage.put(data)

    def change(session: Session, job: Job) -> None:
        workshop.storage.require(sha256)
        model = _model(request, meta) | {"job_id": job.id}
        catalogue.publish(session, model, sha256=sha256, kimg=meta.kimg, bytes_=len(data), metrics={})

    message = f"Blended {_short(request['first'])} and {_short(request['second'])} into {request['name']!r}."
    claim.finish("succeeded", message=message, change=change, result={"model": request["name"], "checkpoint": sha256})


def _parent(workshop: Workplace, reference: str) -> Parent:
    with workshop.db.read() as session:
        sha256 = catalogue.resolve(session, reference).checkpoint.sha256
    return Parent(*networks.read(workshop, sha256), sha256)


def _require_kin(request: dict[str, Any], first: Parent, second: Parent) -> None:
    """Weights that were drawn independently paint nothing when they are mixed: no stage knows what the one before it
    means."""
    shared = kinship(first.generator, second.generator)
    if shared < KIN:
        message = (
            f"{_short(request['first'])} and {_short(request['second'])} have no common beginning: their weights are "
            f"alike by {shared:.2f}, of 1. Only checkpoints of one training, or of trainings that started from one "
            "another, blend."
        )
        raise InvalidRequest(message, code="blend_unrelated", param="with")


def _model(request: dict[str, Any], meta: CheckpointMeta) -> dict[str, Any]:
    return {
        "name": request["name"],
        **catalogue.row_of(meta.config.network),
        "labels": list(meta.labels),
        "vocabulary": list(meta.vocabulary),
        "dataset": meta.dataset,
        "license": meta.license,
        "parents": [request["first"], request["second"]],
    }


def _short(reference: str) -> str:
    name, _, sha256 = reference.partition("@")
    return f"{name}@{sha256[:12]}"
