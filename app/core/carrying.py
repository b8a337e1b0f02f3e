"""Directions survive promotion: each is carried over to the checkpoint that a model now means, or marked as lost."""

from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import directions, jobs, latents
from app.core.records import Checkpoint, Direction, DirectionVector, Job, Model
from app.core.storage import Storage

KIND: Final = "directions"  # of a render job


def lacking(session: Session, model: str, checkpoint: str) -> list[Direction]:
    """Directions that nobody has looked for in this checkpoint yet."""
    return [row for row, vector, _ in directions.in_checkpoint(session, model, checkpoint) if vector is None]


def want(session: Session, model: str, checkpoint: str) -> Job | None:
    """Queue what carries directions over to a checkpoint, inside the caller's transaction; None where that is not
    needed or waits already. Nobody has to dispatch it: the reconciler does."""
    if not lacking(session, model, checkpoint):
        return None
    request: dict[str, Any] = {"kind": KIND, "model": model, "checkpoint": checkpoint, "carry": True}
    unfinished = select(Job).where(Job.kind == "render", Job.status.in_(["queued", "running"]))
    if any(job.request == request for job in session.scalars(unfinished)):
        return None
    return jobs.submit(session, "render", request)


def nearest(session: Session, direction: Direction, checkpoint: str) -> DirectionVector | None:
    """Where to carry a direction from: the checkpoint nearest in training that has it, of equals the one it was found
    in; None where no checkpoint has it any more."""
    rows = select(Checkpoint).where(Checkpoint.model_name == direction.model_name)
    trained = {row.sha256: row.kimg for row in session.scalars(rows)}
    having = [
        vector
        for vector in directions.vectors(session, direction)
        if vector.vector_sha256 is not None and vector.checkpoint in trained
    ]

    def distance(vector: DirectionVector) -> tuple[float, bool]:
        return abs(trained[vector.checkpoint] - trained[checkpoint]), vector.carried_from is not None

    return min(having, key=distance, default=None)


def publish(
    session: Session,
    storage: Storage,
    direction_id: str,
    checkpoint: str,
    *,
    vector: str | None,
    score: float | None,
    carried_from: str | None,
    job_id: str,
) -> None:
    """What became of a direction in a checkpoint; vector: the sha256 of a stored latent, None where it is lost. One
    that was deleted in the meantime, or is there by now, is left as it is."""
    row = session.get(Direction, direction_id)
    if row is None or session.get(DirectionVector, (direction_id, checkpoint)) is not None:
        return
    carried = DirectionVector(
        direction_id=row.id, checkpoint=checkpoint, vector_sha256=vector, score=score, carried_from=carried_from
    )
    if vector is not None:
        model = session.get_one(Model, row.model_name)
        latents.keep(session, storage, vector, (model.num_ws, model.w_dim), job_id)
        directions.scale(session, storage, row, carried)
    session.add(carried)
    session.flush()
