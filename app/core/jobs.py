"""Job lifecycle: the only code that changes a job's status, epoch or lease."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Literal, cast

import structlog
from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from app.core import names
from app.core.db import Database, clock
from app.core.errors import GanvasError, JobStateConflict, NotFound
from app.core.records import Dataset, Job, JobEvent, new_id, utc_now

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 30.0  # a row whose lease is older is handed to a new epoch
RENEW_SECONDS: Final = 5.0  # how often a holder renews
GIVE_UP_SECONDS: Final = 20.0  # a holder that could not renew for this long stops itself, well before the steal
WATCH_SECONDS: Final = 0.5  # how often a holder looks for a cancel request
MESSAGE_CHARACTERS: Final = 500  # as the column has; an error's own message is whole in `error`
MAX_FRUITLESS_ATTEMPTS: Final = 3  # attempts that end without a newly saved state before the job is given up

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]
Kind = Literal["prepare", "train", "render", "project"]

NEXT: Final[dict[str, frozenset[str]]] = {
    "queued": frozenset({"running", "canceled", "failed"}),
    "running": frozenset({"queued", "succeeded", "failed", "canceled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "canceled": frozenset({"queued"}),
}

ENDED: Final = frozenset({"succeeded", "failed", "canceled"})


class LeaseLost(GanvasError):
    """Another epoch owns the job now: whatever this holder still does must not be published."""

    code = "lease_lost"


def submit(session: Session, kind: Kind, request: dict[str, Any]) -> Job:
    """Add a queued job inside the caller's transaction; dispatch it only after that has committed."""
    job = Job(id=new_id("job"), kind=kind, request=request, message="Waiting for a worker.")
    session.add(job)
    session.flush()
    tell(session, job.id, "status", {"status": "queued"})
    return job


def find(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """The job, or NotFound; `lock` keeps other writers off the row until the transaction ends."""
    job = session.get(Job, job_id, with_for_update=lock or None)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}. GET /v1/jobs lists them.", code="job_not_found", param="job")
    return job


def position(session: Session, job: Job) -> int | None:
    """How many queued jobs of its kind a worker takes before this one; None once it has been taken."""
    if job.status != "queued":
        return None
    ahead = select(func.count()).select_from(Job).where(Job.kind == job.kind, Job.status == "queued")
    return session.scalar(ahead.where(Job.created_at < job.created_at))


def events_after(session: Session, job_id: str, after: int, limit: int = 500) -> list[JobEvent]:
    """Events of a job with a higher sequence number than `after`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after)
    return list(session.scalars(query.order_by(JobEvent.id).limit(limit)))


def cancel(session: Session, job_id: str) -> Job:
    """Cancel a queued job at once; ask the holder of a running one to stop at its next step."""
    job = find(session, job_id, lock=True)
    if job.status == "queued":
        _move(session, job, "canceled", message="Canceled before it started.")
    elif job.status == "running":
        job.cancel_requested = True
        job.message = "Stopping at the next step."
    elif job.status != "canceled":
        raise JobStateConflict(f"Job {job.id} is {job.status}; it can no longer be canceled.")
    return job


def resume(session: Session, job_id: str) -> Job:
    """Queue a canceled or failed job again, from its last saved state."""
    job = find(session, job_id, lock=True)
    if job.status not in {"canceled", "failed"}:
        raise JobStateConflict(f"Job {job.id} is {job.status}; only a canceled or failed job can be resumed.")
    if job.kind == "train":
        names.require_free(session, job.request["name"], for_job=job.id)
    _requeue(session, job, "Waiting to resume.")
    job.fruitless = 0
    return job


def keep_state(job: Job, sha256: str, kimg: float) -> str | None:
    """Let the next attempt start from this state, and from the one before it should this be unreadable; the state
    that neither needs any longer."""
    superseded = job.previous_state_sha256
    if sha256 != job.state_sha256:
        job.previous_state_sha256, job.state_sha256 = job.state_sha256, sha256
    job.state_kimg = kimg
    job.fruitless = 0
    return superseded if superseded not in {job.state_sha256, job.previous_state_sha256} else None


def keep_part(job: Job, sha256: str) -> None:
    """Let the next attempt begin behind this part of a drawing."""
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
    unfinished = select(Job).where(Job.kind == "train", Job.status.not_in(ENDED))
    return any(job.request.get("branch") == sha256 for job in session.scalars(unfinished))


def reconcile(session: Session) -> list[Job]:
    """Hand rows whose holder fell silent to a new epoch; returns every queued job that needs a (new) dispatch."""
    now = clock(session)
    silent = select(Job).where(Job.status == "running", Job.lease_until < now)
    for job in session.scalars(silent.with_for_update(skip_locked=True)).all():
        log.warning("job_lease_expired", job=job.id, epoch=job.epoch)
        requeue_or_fail(session, job, "The worker fell silent.")
    stale = (Job.dispatched_at.is_(None)) | (Job.dispatched_at < now - RENEW_SECONDS)
    return list(session.scalars(select(Job).where(Job.status == "queued", stale).order_by(Job.created_at)))


def requeue_or_fail(session: Session, job: Job, reason: str) -> None:
    """Give an interrupted job to a new epoch, or end it when attempt after attempt saved nothing."""
    if job.cancel_requested:
        _move(session, job, "canceled", message="Canceled.")
    elif job.fruitless >= MAX_FRUITLESS_ATTEMPTS:
        message = f"{reason} {job.fruitless} attempts in a row ended without saving anything; the job is given up."
        _move(session, job, "failed", message=message, error={"code": "job_poisoned", "message": message})
    else:
        _requeue(session, job, f"{reason} Waiting for a worker to go on.")


def holder_died(session: Session, job_id: str, epoch: int) -> None:
    """Hand the job on at once when its holder is known to be dead, instead of waiting for the lease."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is not None and job.status == "running" and job.epoch == epoch:
        requeue_or_fail(session, job, "The worker died.")


def mark_dispatched(session: Session, job_id: str, epoch: int) -> None:
    """Note that the bell was rung for this epoch, so that the reconciler leaves it alone for a while."""
    session.execute(update(Job).where(Job.id == job_id, Job.epoch == epoch).values(dispatched_at=clock(session)))


class Claim:
    """A worker's hold on a job: every publish goes through it, and counts only while its epoch is the row's."""

    def __init__(self, db: Database, job: Job, interrupted: threading.Event) -> None:
        self.db = db
        self.job_id = job.id
        self.epoch = job.epoch
        self.request = job.request
        self.states = [sha256 for sha256 in (job.state_sha256, job.previous_state_sha256) if sha256]
        self._renewed = time.monotonic()
        self._lost = threading.Event()
        self._cancel = threading.Event()
        self._interrupted = interrupted
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{job.id}", daemon=True)
        self._thread.start()

    @property
    def canceled(self) -> bool:
        """Whether somebody asked for the job to stop for good."""
        return self._cancel.is_set()

    @property
    def lost(self) -> bool:
        """Whether the lease went to another epoch, or could not be renewed for too long to be sure."""
        return self._lost.is_set() or time.monotonic() - self._renewed > GIVE_UP_SECONDS

    def should_stop(self) -> bool:
        """True when the work must stop at its next step, for whichever reason."""
        return self._cancel.is_set() or self._interrupted.is_set() or self.lost

    def publish(self, change: Callable[[Session, Job], None]) -> None:
        """Apply `change` in one transaction, only while we hold the job; LeaseLost otherwise."""
        with self.db.begin() as session:
            change(session, self._held(session))

    def report(self, type_: str, data: dict[str, Any], **values: Any) -> None:
        """Record an event and new values of the job's progress columns."""

        def change(session: Session, job: Job) -> None:
            for name, value in values.items():
                setattr(job, name, value)
            tell(session, job.id, type_, data)

        self.publish(change)

    def finish(
        self,
        status: Status,
        *,
        message: str,
        change: Callable[[Session, Job], None] | None = None,
        result: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        """End the job, together with whatever `change` publishes, in one transaction."""

        def end(session: Session, job: Job) -> None:
            if change is not None:
                change(session, job)
            job.result = result
            _move(session, job, status, message=message, error=error)

        self.publish(end)

    def give_back(self, reason: str) -> None:
        """Hand the job to another attempt, because of something that is not the job's fault but may last."""
        with contextlib.suppress(LeaseLost):
            self.publish(lambda session, job: requeue_or_fail(session, job, reason))

    def leave(self) -> None:
        """Stop renewing, and leave the job to whoever else holds it."""
        self._released.set()
        self._thread.join(timeout=RENEW_SECONDS)

    def release(self) -> None:
        """Stop renewing. A job that is still running after an interruption goes back to the queue at once."""
        self.leave()
        if self._interrupted.is_set() and not self._lost.is_set():
            with contextlib.suppress(LeaseLost):
                self.publish(_drain)

    def _held(self, session: Session) -> Job:
        query = select(Job).where(Job.id == self.job_id).with_for_update()
        job = session.scalars(query).one_or_none()
        if job is None or job.epoch != self.epoch or job.status != "running":
            self._lost.set()
            raise LeaseLost(f"Job {self.job_id} is no longer held by epoch {self.epoch}.")
        return job

    def _keep(self) -> None:
        while not self._released.wait(WATCH_SECONDS):
            try:
                self._watch()
            except GanvasError as error:  # the database is away: `lost` turns true when that lasts
                log.warning("lease_not_renewed", job=self.job_id, reason=error.message)

    def _watch(self) -> None:
        with self.db.read() as session:
            row = session.execute(
                select(Job.epoch, Job.status, Job.cancel_requested).where(Job.id == self.job_id)
            ).one_or_none()
        if row is None or row.epoch != self.epoch or row.status != "running":
            self._lost.set()
        elif row.cancel_requested:
            self._cancel.set()
        if time.monotonic() - self._renewed < RENEW_SECONDS or self._lost.is_set():
            return
        with self.db.begin() as session:
            held = (Job.id == self.job_id, Job.epoch == self.epoch, Job.status == "running")
            renewed = _changed(session, update(Job).where(*held).values(lease_until=clock(session) + LEASE_SECONDS))
        if renewed:
            self._renewed = time.monotonic()
        else:
            self._lost.set()


def _drain(session: Session, job: Job) -> None:
    job.fruitless = max(0, job.fruitless - 1)  # a drain is nobody's failure
    requeue_or_fail(session, job, "The worker was stopped.")


def claim(db: Database, job_id: str, interrupted: threading.Event) -> Claim | None:
    """Take a queued job by compare-and-set; None where another delivery was first or the job has ended.

    Setting `interrupted` asks for a stop at the next step with the state saved: the job then goes back to the queue.
    """
    with db.begin() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "queued":
            return None
        held = (Job.id == job_id, Job.epoch == job.epoch, Job.status == "queued")
        taken = update(Job).where(*held)
        values = {
            "status": "running",
            "lease_until": clock(session) + LEASE_SECONDS,
            "attempts": Job.attempts + 1,
            "fruitless": Job.fruitless + 1,
            "started_at": func.coalesce(Job.started_at, utc_now()),
            "message": "Starting.",
        }
        if not _changed(session, taken.values(values)):
            return None
        session.refresh(job)
        tell(session, job_id, "status", {"status": "running", "attempt": job.attempts})
    return Claim(db, job, interrupted)


def join(db: Database, job_id: str, epoch: int, interrupted: threading.Event) -> Claim | None:
    """A second hold on a running job, for a process that its holder started; None where another epoch has it. Leave it
    with `leave`: what becomes of the job is its holder's to say."""
    with db.read() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "running" or job.epoch != epoch:
            return None
        return Claim(db, job, interrupted)


def _changed(session: Session, statement: Update) -> int:
    """How many rows a compare-and-set changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def _requeue(session: Session, job: Job, message: str) -> None:
    _move(session, job, "queued", message=message)
    job.epoch += 1
    job.lease_until = None
    job.dispatched_at = None
    job.finished_at = None
    job.cancel_requested = False


def _move(session: Session, job: Job, status: Status, *, message: str, error: dict[str, Any] | None = None) -> None:
    if status not in NEXT[job.status]:
        raise JobStateConflict(f"Job {job.id} is {job.status}; it cannot become {status}.")
    job.status = status
    job.message = message[:MESSAGE_CHARACTERS]
    job.error = error
    job.eta_seconds = None
    if status in ENDED:
        job.finished_at = utc_now()
        job.lease_until = None
        job.progress = 1.0 if status == "succeeded" else job.progress
    if job.kind == "prepare":
        _tell_dataset(session, job)
    tell(session, job.id, "status", {"status": status, "message": message})


def _tell_dataset(session: Session, job: Job) -> None:
    """A dataset whose preparation ends without success is failed, whatever ended it; success is the task's to tell."""
    dataset = session.get(Dataset, job.request["dataset"])
    if dataset is None:
        return
    if job.status in {"failed", "canceled"}:
        dataset.status = "failed"
        dataset.error = job.error or {"code": "canceled", "message": "Its preparation was canceled."}
    elif job.status == "queued":
        dataset.status = "preparing"
        dataset.error = None


def tell(session: Session, job_id: str, type_: str, data: dict[str, Any]) -> None:
    """Add an event to a job, inside the caller's transaction."""
    session.add(JobEvent(job_id=job_id, type=type_, data=data))
