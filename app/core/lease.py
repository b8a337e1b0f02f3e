"""The lease on a running job: renewed from a thread while its holder lives, lost when another epoch has the job."""

import threading
import time
from typing import Any, Final, cast

import structlog
from sqlalchemy import CursorResult, Update, select, update
from sqlalchemy.orm import Session

from app.core.db import Database, clock
from app.core.errors import GanvasError, StorageFull
from app.core.records import Job

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 30.0  # a row whose lease is older is handed to a new epoch
RENEW_SECONDS: Final = 5.0  # how often a holder renews
GIVE_UP_SECONDS: Final = 20.0  # a holder that could not renew for this long stops itself, well before the steal
WATCH_SECONDS: Final = 0.5  # how often a holder looks for a cancel request


class Lease:
    """Renews the lease of one epoch, and hears of cancels meanwhile, until it is closed."""

    def __init__(self, db: Database, job_id: str, epoch: int) -> None:
        self._db = db
        self._job_id = job_id
        self._held = (Job.id == job_id, Job.epoch == epoch, Job.status == "running")
        self._renewed = time.monotonic()
        self._lost = threading.Event()
        self._cancel = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{job_id}", daemon=True)
        self._thread.start()

    @property
    def canceled(self) -> bool:
        """Whether somebody asked for the job to stop for good."""
        return self._cancel.is_set()

    @property
    def lost(self) -> bool:
        """Whether another epoch has the job, or the lease could not be renewed for too long to be sure."""
        return self._lost.is_set() or time.monotonic() - self._renewed > GIVE_UP_SECONDS

    def lose(self) -> None:
        """Note that another epoch has the job."""
        self._lost.set()

    def close(self) -> None:
        """Renew no more."""
        self._closed.set()
        self._thread.join(timeout=RENEW_SECONDS)

    def _keep(self) -> None:
        while not self._closed.wait(WATCH_SECONDS):
            try:
                self._watch()
            except StorageFull:  # nor can others write that the job is theirs; when they can, we shall be first
                self._renewed = time.monotonic() - RENEW_SECONDS
            except GanvasError as error:  # the database is away: `lost` turns true when that lasts
                log.warning("lease_not_renewed", job=self._job_id, reason=error.message)

    def _watch(self) -> None:
        with self._db.read() as session:
            cancel = session.execute(select(Job.cancel_requested).where(*self._held)).scalar_one_or_none()
        if cancel is None:
            self._lost.set()
        elif cancel:
            self._cancel.set()
        if time.monotonic() - self._renewed < RENEW_SECONDS or self._lost.is_set():
            return
        with self._db.begin() as session:
            renew = update(Job).where(*self._held).values(lease_until=clock(session) + LEASE_SECONDS)
            renewed = changed(session, renew)
        if renewed:
            self._renewed = time.monotonic()
        else:
            self._lost.set()


def changed(session: Session, statement: Update) -> int:
    """How many rows a compare-and-set changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
