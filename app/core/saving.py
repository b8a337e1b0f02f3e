"""What an attempt leaves for the next one to start from, and the picture that a drawing is shown by meanwhile."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.records import Job


def keep_state(job: Job, sha256: str, kimg: float) -> str | None:
    """Let the next attempt start from this state, and from the one before it should this be unreadable; the state
    that neither needs any longer."""
    superseded = job.previous_state_sha256
    if sha256 != job.state_sha256:
        job.previous_state_sha256, job.state_sha256 = job.state_sha256, sha256
    job.state_kimg = kimg
    job.fruitless = 0
    return superseded if superseded not in {job.state_sha256, job.previous_state_sha256} else None


def states(job: Job) -> list[str]:
    """The states an attempt may start from, the newest first; none of a job that saved none."""
    return [sha256 for sha256 in (job.state_sha256, job.previous_state_sha256) if sha256]


def keep_part(job: Job, sha256: str) -> None:
    """Let the next attempt begin behind this part of a drawing; said again, as after a commit that was not answered, it
    changes nothing."""
    if job.parts[-1:] != [sha256]:
        job.parts = [*job.parts, sha256]
    job.fruitless = 0


def keep_preview(job: Job, sha256: str) -> str | None:
    """Show this picture of a drawing in the making; the one before it, which nobody needs any longer."""
    superseded, job.preview_sha256 = job.preview_sha256, sha256
    return superseded if superseded != sha256 else None


def state_in_use(session: Session, sha256: str) -> bool:
    """Whether any job would start from this state: its own saved one, or the one it branches from."""
    own = select(Job.id).where((Job.state_sha256 == sha256) | (Job.previous_state_sha256 == sha256)).limit(1)
    if session.scalar(own) is not None:
        return True
    unfinished = select(Job).where(Job.kind == "train", Job.status != "succeeded")  # the others may be resumed
    return any(job.request.get("branch") == sha256 for job in session.scalars(unfinished))
