"""What the database says of itself: its schema and pages, jobs that nobody holds, times that have not come yet."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select, text

from app.core.db import Database, clock
from app.core.doctor.finding import Finding, note, repairable, repaired, well, wrong
from app.core.errors import GanvasError
from app.core.queue import Dispatcher
from app.core.records import Dataset, Job, JobEvent, utc_now
from app.core.settings import Settings

GRACE_SECONDS: Final = 15.0  # a studio that runs looks for silent jobs every few seconds
UNTOLD_SECONDS: Final = 60.0  # and tells its workers of waiting ones, again and again
AHEAD: Final = timedelta(seconds=60)


def schema(db: Database, *, repair: bool) -> Iterator[Finding]:
    """Whether the tables are those of this Ganvas; what follows needs them to be."""
    found, head = db.schema()
    if found == head:
        yield well("schema", f"It is at {head}, the newest.")
    elif found is not None and found > head:
        yield wrong("schema", f"It is at {found}, of a newer Ganvas than this one, which knows {head}. Update Ganvas.")
    elif repair:
        db.migrate()
        yield repaired("schema", f"It was at {found or 'nothing'} and is at {head} now.")
    else:
        yield repairable("schema", f"It is at {found or 'nothing'}; this Ganvas needs {head}.")


def pages(db: Database) -> Iterator[Finding]:
    """Whether SQLite finds its own pages and references whole; PostgreSQL has tools of its own."""
    if not db.is_sqlite:
        return
    with db.read() as session:
        told = session.scalars(text("PRAGMA integrity_check(5)")).all()
        lost = session.execute(text("PRAGMA foreign_key_check")).all()
    if list(told) != ["ok"]:
        yield wrong("database", f"It is damaged: {'; '.join(map(str, told))}. Restore a backup: `ganvas restore`.")
    elif lost:
        yield wrong("database", f"{len(lost)} rows refer to rows that are not there, the first in {lost[0][0]}.")
    else:
        yield well("database", "Every page is whole.")


def jobs(settings: Settings, db: Database, *, running: bool, repair: bool) -> Iterator[Finding]:
    """Jobs whose worker fell silent and that were not handed on, and jobs that no worker was told of."""
    with db.read() as session:
        now = clock(session)
        count = select(func.count()).select_from(Job)
        late = (Job.status == "running", Job.lease_until < now - GRACE_SECONDS)
        waiting = (Job.status == "queued", func.coalesce(Job.dispatched_at, 0.0) < now - UNTOLD_SECONDS)
        silent, untold = session.scalar(count.where(*late)) or 0, session.scalar(count.where(*waiting)) or 0
    if not silent and not untold:
        yield well("jobs", "Each is ended, held by a worker, or waits for one that knows of it.")
        return
    message = f"{silent} are held by workers that fell silent, and of {untold} no worker was told."
    if not running and settings.redis_url is None:
        yield note("jobs", f"{message} `ganvas up` hands them on.")
    elif repair:
        try:
            dispatcher = Dispatcher(db, settings.redis)
            rung = dispatcher.reconcile()
            dispatcher.close()
        except GanvasError as error:
            yield wrong("jobs", f"{message} They could not be handed on: {error.message}")
            return
        rest = "workers were told" if rung else "workers will be told when Redis answers"
        yield repaired("jobs", f"{message} They wait in the queue now, and {rest}.")
    else:
        yield repairable("jobs", message)


def times(db: Database) -> Iterator[Finding]:
    """Rows of the future: this clock was ahead once, or has gone back."""
    with db.read() as session:
        newest = [session.scalar(select(func.max(row.created_at))) for row in (Job, JobEvent, Dataset)]
    latest = max((moment for moment in newest if moment is not None), default=None)
    if latest is not None and latest > utc_now() + AHEAD:
        yield wrong("clock", f"The newest row is of {latest:%Y-%m-%d %H:%M:%S} UTC, which is to come. Set the clock.")
    else:
        yield well("clock", "No row is of the future.")
