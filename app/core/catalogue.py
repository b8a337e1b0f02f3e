"""The catalogue of models: which checkpoint a name means, and how a new checkpoint joins it."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import callers, carrying
from app.core.errors import Conflict, InvalidRequest, NotFound
from app.core.records import Checkpoint, Job, Model
from models.config import NetworkConfig

CHECKPOINT_PREFIX: Final = re.compile(r"[0-9a-f]{12,64}")


@dataclass(frozen=True)
class Resolved:
    """A name turned into exact weights; `pinned` tells whether the caller named the checkpoint itself."""

    model: Model
    checkpoint: Checkpoint
    pinned: bool


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
    """The model, or NotFound; NotAllowed for a caller whose key is for another."""
    callers.require_model(name)
    model = session.get(Model, name)
    if model is None:
        message = f"There is no model {name!r}. GET /v1/models lists what there is."
        raise NotFound(message, code="model_not_found", param="model")
    return model


def model_of(session: Session, sha256: str, name: str, param: str = "checkpoint") -> Model:
    """The model that has these weights, the one of this name where several have them; NotFound where none has."""
    query = select(Model).join(Checkpoint, Checkpoint.model_name == Model.name).where(Checkpoint.sha256 == sha256)
    models = {model.name: model for model in session.scalars(query.order_by(Model.created_at))}
    if not models:
        message = f"No weights here begin with {sha256[:12]}, those of {name!r}."
        raise NotFound(message, code="checkpoint_not_found", param=param)
    return models.get(name) or next(iter(models.values()))


def weights(session: Session, sha256s: Collection[str]) -> set[tuple[str, str]]:
    """Model and checkpoint of those of these weights that are here."""
    query = select(Checkpoint.model_name, Checkpoint.sha256).where(Checkpoint.sha256.in_(sha256s))
    return {(model, sha256) for model, sha256 in session.execute(query)}


def newest(session: Session) -> Model | None:
    """The model that was made last among those that can be drawn from."""
    query = select(Model).where(Model.promoted.is_not(None)).order_by(Model.created_at.desc()).limit(1)
    return session.scalars(query).one_or_none()


def checkpoints(session: Session, name: str) -> list[Checkpoint]:
    """A model's checkpoints, oldest training first."""
    query = select(Checkpoint).where(Checkpoint.model_name == name).order_by(Checkpoint.kimg, Checkpoint.created_at)
    return list(session.scalars(query))


def row_of(network: NetworkConfig) -> dict[str, Any]:
    """What a model's row says of its networks."""
    return {
        "architecture": network.architecture,
        "resolution": network.resolution,
        "z_dim": network.z_dim,
        "w_dim": network.w_dim,
        "num_ws": network.num_ws,
        "encoder": None if network.text is None else network.text.encoder,
    }


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
        _mean(session, row, sha256)
    return row


def promote(session: Session, name: str, prefix: str) -> Model:
    """Make a checkpoint what the bare name means, also against a training that still runs."""
    found = resolve(session, f"{name}@{prefix}")
    _mean(session, found.model, found.checkpoint.sha256)
    found.model.chosen = True
    return found.model


def fall_back(session: Session, name: str, lost: Collection[str]) -> str | None:
    """Make the newest checkpoint that is not lost what the bare name means; None where there is none."""
    rest = [row.sha256 for row in checkpoints(session, name) if row.sha256 not in lost]
    if not rest:
        return None
    _mean(session, find(session, name), rest[-1])
    return rest[-1]


def _mean(session: Session, model: Model, sha256: str) -> None:
    """Let the bare name mean this checkpoint, and its directions follow."""
    model.promoted = sha256
    session.flush()
    carrying.want(session, model.name, sha256)


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
