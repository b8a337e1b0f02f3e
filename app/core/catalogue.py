"""The catalogue of models: which checkpoint a name means, and how a new checkpoint joins it."""

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import Conflict, InvalidRequest, NotFound
from app.core.records import Checkpoint, Job, Model

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
CHECKPOINT_PREFIX: Final = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Resolved:
    """A name turned into exact weights; `pinned` tells whether the caller named the checkpoint itself."""

    model: Model
    checkpoint: Checkpoint
    pinned: bool


def check_name(name: str) -> str:
    """The name, or InvalidRequest saying what a model may be called."""
    if not MODEL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot name a model: use 1-100 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or digit.",
            code="model_name_invalid",
            param="name",
        )
    return name


def resolve(session: Session, reference: str) -> Resolved:
    """`name` or `name@checkpoint` (12 or more hex digits) to one checkpoint; NotFound saying which half is wrong."""
    name, at, prefix = reference.partition("@")
    model = find(session, name)
    if not at:
        if model.promoted is None:
            raise NotFound(
                f"Model {name!r} has no checkpoint yet: its training has not reached the first snapshot.",
                code="checkpoint_not_found",
                param="model",
            )
        return Resolved(model, _checkpoint(session, name, model.promoted), pinned=False)
    if not CHECKPOINT_PREFIX.fullmatch(prefix):
        raise InvalidRequest(
            f"{prefix!r} does not name a checkpoint: give 12 or more hex digits of its sha256.",
            code="checkpoint_invalid",
            param="model",
        )
    return Resolved(model, _checkpoint(session, name, prefix), pinned=True)


def find(session: Session, name: str) -> Model:
    """The model, or NotFound."""
    model = session.get(Model, name)
    if model is None:
        message = f"There is no model {name!r}. GET /v1/models lists what there is."
        raise NotFound(message, code="model_not_found", param="model")
    return model


def require_free(session: Session, name: str, *, for_job: str | None = None) -> str:
    """The name, or Conflict where a model or an unfinished training has it that is not this job's own."""
    unfinished = select(Job).where(Job.kind == "train", Job.status.in_(["queued", "running"]), Job.id != for_job)
    model = session.get(Model, name)
    owned = model is not None and for_job is not None and model.job_id == for_job
    wanted = any(job.request.get("name") == name for job in session.scalars(unfinished))
    if wanted or (model is not None and not owned):
        message = f"A model named {name!r} exists already, or is being trained; choose another name."
        raise Conflict(message, code="model_exists", param="name")
    return name


def newest(session: Session) -> Model | None:
    """The model that was made last among those that can be drawn from."""
    query = select(Model).where(Model.promoted.is_not(None)).order_by(Model.created_at.desc()).limit(1)
    return session.scalars(query).one_or_none()


def checkpoints(session: Session, name: str) -> list[Checkpoint]:
    """A model's checkpoints, oldest training first."""
    query = select(Checkpoint).where(Checkpoint.model_name == name).order_by(Checkpoint.kimg, Checkpoint.created_at)
    return list(session.scalars(query))


def publish(
    session: Session,
    model: dict[str, Any],
    *,
    sha256: str,
    kimg: float,
    bytes_: int,
    metrics: dict[str, Any],
    sheet_sha256: str | None = None,
    promote: bool = True,
) -> Model:
    """Add a checkpoint, and its model when it is the first. Conflict where the name belongs to another training.

    promote: it becomes what the bare name means, unless the artist has chosen one. The first becomes that in any case.
    """
    row = session.get(Model, model["name"])
    if row is None:
        row = Model(**model)
        session.add(row)
        session.flush()
    elif row.job_id != model.get("job_id"):
        raise Conflict(
            f"A model named {row.name!r} exists already; choose another name.", code="model_exists", param="name"
        )
    found = session.get(Checkpoint, (row.name, sha256))
    if found is None:
        session.add(
            Checkpoint(
                model_name=row.name,
                sha256=sha256,
                job_id=row.job_id,
                kimg=kimg,
                bytes=bytes_,
                metrics=metrics,
                sheet_sha256=sheet_sha256,
            )
        )
    if row.promoted is None or (promote and not row.chosen):
        row.promoted = sha256
    return row


def promote(session: Session, name: str, prefix: str) -> Model:
    """Make a checkpoint what the bare name means, also against a training that still runs."""
    found = resolve(session, f"{name}@{prefix}")
    found.model.promoted = found.checkpoint.sha256
    found.model.chosen = True
    return found.model


def delete(session: Session, name: str) -> list[str]:
    """Remove a model with its checkpoints and return the blobs that nothing else names; Conflict while it trains."""
    row = find(session, name)
    job = session.get(Job, row.job_id) if row.job_id else None
    if job is not None and job.finished_at is None:
        raise Conflict(f"Job {job.id} still trains {name!r}; cancel it first.", code="model_in_use", param="model")
    waiting = select(Job).where(Job.kind == "train", Job.status.in_(["queued", "running"]), Job.state_sha256.is_(None))
    for other_job in session.scalars(waiting):
        if str(other_job.request.get("base")).partition("@")[0] == name:
            message = f"Job {other_job.id} will start from {name!r}; cancel it first, or wait for its first snapshot."
            raise Conflict(message, code="model_in_use", param="model")
    mine = checkpoints(session, name)
    blobs = {item.sha256 for item in mine} | {item.sheet_sha256 for item in mine if item.sheet_sha256}
    session.delete(row)
    session.flush()
    for other in session.scalars(select(Checkpoint)):
        blobs -= {other.sha256, other.sheet_sha256}
    return sorted(blobs)


def _checkpoint(session: Session, name: str, prefix: str) -> Checkpoint:
    matches = [row for row in checkpoints(session, name) if row.sha256.startswith(prefix)]
    if len(matches) != 1:
        what = "no checkpoint" if not matches else f"{len(matches)} checkpoints"
        message = f"Model {name!r} has {what} beginning with {prefix!r}. GET /v1/models/{name} lists them."
        raise NotFound(message, code="checkpoint_not_found", param="model")
    return matches[0]
