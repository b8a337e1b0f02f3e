"""What became of a job's attempts, as its events tell it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.records import Job, JobEvent, utc_now


def fruitless(session: Session, job: Job, reason: str) -> list[dict[str, Any]]:
    """The attempts since anything was saved, of which the last has ended just now for this reason: the number of each,
    when it began and ended, and how."""
    query = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.type == "status").order_by(JobEvent.id)
    attempts: list[dict[str, Any]] = []
    for event in session.scalars(query):
        if event.data["status"] == "running":
            attempts.append({"attempt": event.data["attempt"], "began_at": event.created_at.isoformat()})
        elif attempts:
            attempts[-1] |= {"ended_at": event.created_at.isoformat(), "ended": event.data["message"]}
    if attempts:
        attempts[-1] |= {"ended_at": utc_now().isoformat(), "ended": reason}
    return attempts[-job.fruitless :]
