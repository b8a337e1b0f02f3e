"""Directions carried over to a checkpoint that nobody looked for them in: matched, or lost."""

from collections import defaultdict
from typing import Final

import numpy as np
from sqlalchemy.orm import Session

from app.core import carrying, catalogue, jobs, latents
from app.core.records import Direction, DirectionVector, Job
from models.latents.directions import MATCHED, match
from models.networks.generator import Generator
from worker.rendering import networks
from worker.rendering.engine import Stopped
from worker.rendering.publish import Workplace

TOGETHER: Final = 8  # directions that are matched between two looks at whether to stop
Carried = tuple[Direction, DirectionVector | None, str | None, float | None]  # from where, the new vector, the score


def carry(workshop: Workplace, claim: jobs.Claim) -> None:
    """Match each direction from the nearest checkpoint that has it, and publish what became of all of them."""
    name, checkpoint = claim.request["model"], claim.request["checkpoint"]
    sources: defaultdict[str | None, list[tuple[Direction, DirectionVector | None]]] = defaultdict(list)
    with workshop.db.read() as session:
        catalogue.resolve(session, f"{name}@{checkpoint}")
        for row in carrying.lacking(session, name, checkpoint):
            vector = carrying.nearest(session, row, checkpoint)
            sources[None if vector is None else vector.checkpoint].append((row, vector))
    total = sum(map(len, sources.values()))
    carried: list[Carried] = [(row, None, None, None) for row, _ in sources.pop(None, [])]
    if sources:
        new, _ = networks.read(workshop, checkpoint)
        for source, wanted in sources.items():
            old, _ = networks.read(workshop, source or "")
            having = [(row, vector) for row, vector in wanted if vector is not None]
            for start in range(0, len(having), TOGETHER):
                if claim.should_stop():
                    raise Stopped
                carried += _matched(workshop, old, new, having[start : start + TOGETHER])
                _tell(claim, len(carried), total)
    _publish(workshop, claim, carried)


def _matched(
    workshop: Workplace, old: Generator, new: Generator, wanted: list[tuple[Direction, DirectionVector]]
) -> list[Carried]:
    """Directions of one checkpoint as another has them, the new vectors stored."""
    vectors = []
    for row, vector in wanted:
        numbers = latents.read(workshop.storage.get(vector.vector_sha256 or ""), old.num_ws, old.w_dim)
        if numbers is None:
            raise ValueError(f"Latent {vector.vector_sha256} is of another model than its direction.")
        vectors.append((numbers[row.layers[0] if row.layers else 0], row.layers))
    carried: list[Carried] = []
    for (row, vector), matched in zip(wanted, match(old, new, vectors), strict=True):
        stored = None
        if matched.score >= MATCHED:
            step = networks.in_layers(np.float32(matched.sigma) * matched.vector, row.layers, new.num_ws)
            stored = latents.store(workshop.storage, step)
        carried.append((row, vector, stored, matched.score))
    return carried


def _tell(claim: jobs.Claim, done: int, total: int) -> None:
    message = f"Looked for {done} of {total} directions."
    claim.report("tick", {"done": done, "total": total}, progress=done / total, message=message)


def _publish(workshop: Workplace, claim: jobs.Claim, carried: list[Carried]) -> None:
    checkpoint = claim.request["checkpoint"]

    def change(session: Session, job: Job) -> None:
        catalogue.resolve(session, f"{claim.request['model']}@{checkpoint}")
        for row, source, vector, score in carried:
            carrying.publish(
                session,
                workshop.storage,
                row.id,
                checkpoint,
                vector=vector,
                score=score,
                carried_from=None if source is None else source.checkpoint,
                job_id=job.id,
            )

    lost = [row.name for row, _, vector, _ in carried if vector is None]
    message = f"Carried {len(carried) - len(lost)} of {len(carried)} directions over to {checkpoint[:12]}."
    if lost:
        message += f" Lost: {', '.join(lost)}."
    result = {
        "checkpoint": checkpoint,
        "carried": {row.name: score for row, _, vector, score in carried if vector is not None},
        "lost": {row.name: score for row, _, vector, score in carried if vector is None},
    }
    claim.finish("succeeded", message=message, change=change, result=result)
