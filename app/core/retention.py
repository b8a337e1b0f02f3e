"""What is not kept for ever, by the settings: sheets and ticks of ended jobs, and drawn files that nobody kept."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import CursorResult, delete, exists, select
from sqlalchemy.orm import Session

from app.core import blobs, idempotency
from app.core.db import Database
from app.core.records import Artwork, Checkpoint, Job, JobEvent, utc_now
from app.core.settings import Settings
from app.core.storage import Storage

SWEPT_AT_ONCE: Final = 500  # rows in one transaction: others wait for it to write
DRAWING: Final = ("render", "project")


def sweep(settings: Settings, db: Database, storage: Storage) -> dict[str, int]:
    """Forget what the settings no longer keep, and the blobs that nothing else names; how much of each was forgotten.

    It may be ended at any moment and begun again, also by several processes at once. Raises Unavailable.
    """
    found = {"answers": idempotency.sweep(db, storage)}
    for what, days, forget in (
        ("samples", settings.keep_samples_days, _samples),
        ("events", settings.keep_events_days, _events),
        ("files", settings.keep_files_days, _files),
    ):
        found[what] = _all(db, storage, forget, utc_now() - timedelta(days=days)) if days else 0
    return {what: count for what, count in found.items() if count}


Forget = Callable[[Session, datetime], tuple[int, set[str]]]  # how many rows it changed, and blobs they named


def _all(db: Database, storage: Storage, forget: Forget, before: datetime) -> int:
    """Some rows at a time, until there are none. Blobs go in the transaction that no longer names them."""
    total = 0
    while True:
        with db.begin() as session:
            count, freed = forget(session, before)
            session.flush()
            if freed:
                named = blobs.named(session)
                for sha256 in freed:
                    if sha256 not in named:
                        storage.delete(sha256)
        total += count
        if count < SWEPT_AT_ONCE:
            return total


def _samples(session: Session, before: datetime) -> tuple[int, set[str]]:
    ended = select(Checkpoint).join(Job, Job.id == Checkpoint.job_id).where(Job.finished_at < before)
    rows = session.scalars(ended.where(Checkpoint.sheet_sha256.is_not(None)).limit(SWEPT_AT_ONCE)).all()
    freed = {row.sheet_sha256 for row in rows if row.sheet_sha256}
    for row in rows:
        row.sheet_sha256 = None
    return len(rows), freed


def _events(session: Session, before: datetime) -> tuple[int, set[str]]:
    ended = select(Job.id).where(Job.finished_at < before)
    ticks = select(JobEvent.id).where(JobEvent.type == "tick", JobEvent.job_id.in_(ended)).limit(SWEPT_AT_ONCE)
    gone = session.execute(delete(JobEvent).where(JobEvent.id.in_(ticks)))
    return cast("CursorResult[Any]", gone).rowcount, set()


def _files(session: Session, before: datetime) -> tuple[int, set[str]]:
    """The file of a render stays where it is that of an artwork, and its recipe, which draws it again, in any case."""
    file = Job.result["file"].as_string()
    kept = exists().where(Artwork.file_sha256 == file)
    drawn = select(Job).where(Job.kind.in_(DRAWING), Job.finished_at < before, file.is_not(None), ~kept)
    rows = session.scalars(drawn.limit(SWEPT_AT_ONCE)).all()
    freed = set()
    for job in rows:
        result = dict(job.result or {})
        freed |= {result.pop("file"), *job.parts}
        result.pop("url", None)
        job.result, job.parts = result, []
        job.message = "Its file was not kept and is gone; its recipe draws it again."
    return len(rows), freed
