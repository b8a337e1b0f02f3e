"""Job lifecycle: the only code that changes a job's status, epoch or lease."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

import structlog
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from app.core import attempts, callers, names, queue_depth, webhooks
from app.core.db import Database, clock
from app.core.errors import GanvasError, JobStateConflict, NotFound, StorageFull, Unavailable
from app.core.lease import LEASE_SECONDS, RENEW_SECONDS, Lease, changed
from app.core.records import Dataset, Job, JobEvent, new_id, utc_now

log = structlog.get_logger(__name__)

HARD_STOP_SECONDS: Final = 60.0  # a holder is given at least this long to heed a cancel, and then killed
ROOM_SECONDS: Final = 3.0  # how often a holder tries again to write what the disk had no room for
MESSAGE_CHARACTERS: Final = 500  # as the column has; an error's own message is whole in `error`
RECONCILED_AT_ONCE: Final = 500  # queued rows looked at in one go, those that were told of longest ago first
MAX_FRUITLESS_ATTEMPTS: Final = 3  # attempts that end without a newly saved state before the job is given up

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]
Kind = Literal["prepare", "train", "render", "project"]
Done = TypeVar("Done")

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
    """Add a queued job inside the caller's transaction; dispatch it only after that has committed. Busy where too many
    wait for who asks."""
    caller = callers.current()
    queue_depth.require_room(session, caller)
    job = Job(id=new_id("job"), kind=kind, request=request, key_id=caller.key_id, message="Waiting for a worker.")
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
        job.cancel_requested_at = job.cancel_requested_at or clock(session)
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
    queue_depth.require_room(session, replace(callers.current(), key_id=job.key_id))
    _requeue(session, job, "Waiting to resume.")
    job.fruitless = 0
    return job


def reconcile(session: Session, *, hand_on: bool = True) -> list[Job]:
    """Hand rows whose holder fell silent to a new epoch, if `hand_on`; returns every queued job that needs a (new)
    dispatch."""
    now = clock(session)
    silent = select(Job).where(Job.status == "running", Job.lease_until < now)
    for job in session.scalars(silent.with_for_update(skip_locked=True)).all() if hand_on else ():
        log.warning("job_lease_expired", job=job.id, epoch=job.epoch)
        requeue_or_fail(session, job, "The worker fell silent.")
    told = func.coalesce(Job.dispatched_at, 0.0)
    unheard = select(Job).where(Job.status == "queued", told < now - RENEW_SECONDS)
    return list(session.scalars(unheard.order_by(told, Job.created_at).limit(RECONCILED_AT_ONCE)))


def requeue_or_fail(session: Session, job: Job, reason: str) -> None:
    """Give an interrupted job to a new epoch, or end it when attempt after attempt saved nothing."""
    if job.cancel_requested:
        _move(session, job, "canceled", message="Canceled.")
    elif job.fruitless >= MAX_FRUITLESS_ATTEMPTS:
        message = f"{reason} {job.fruitless} attempts in a row ended without saving anything; the job is given up."
        error = {"code": "job_poisoned", "message": message, "history": attempts.fruitless(session, job, reason)}
        _move(session, job, "failed", message=message, error=error)
    else:
        _requeue(session, job, f"{reason} Waiting for a worker to go on.")


def holder_died(session: Session, job_id: str, epoch: int) -> None:
    """Hand the job on at once when its holder is known to be dead, instead of waiting for the lease."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is not None and job.status == "running" and job.epoch == epoch:
        requeue_or_fail(session, job, "The worker died.")


def overdue(session: Session, job_id: str, epoch: int, step_seconds: float) -> str | None:
    """Why the holder of this epoch has to be ended: it did not heed a cancel in time, or the job is no longer its own,
    which it should have noticed; None where it may go on. Cancels are heeded between steps of up to `step_seconds`."""
    job = session.get(Job, job_id)
    if job is None or job.epoch != epoch:
        return "Another epoch has the job."
    asked_at = job.cancel_requested_at if job.status == "running" else None
    if asked_at is not None and clock(session) - asked_at > max(HARD_STOP_SECONDS, step_seconds):
        return "It did not heed a cancel."
    return None


def say_waiting(session: Session, job_id: str, why: str) -> None:
    """Say why nobody takes a queued job yet."""
    waiting = (Job.id == job_id, Job.status == "queued")
    session.execute(update(Job).where(*waiting).values(message=why[:MESSAGE_CHARACTERS]))


def mark_dispatched(session: Session, rung: Sequence[Job]) -> None:
    """Note that the bell was rung for these epochs, so that the reconciler leaves them alone for a while."""
    session.execute(
        update(Job)
        .where(tuple_(Job.id, Job.epoch).in_([(job.id, job.epoch) for job in rung]))
        .values(dispatched_at=clock(session))
    )


class Claim:
    """A worker's hold on a job: every publish goes through it, and counts only while its epoch is the row's."""

    def __init__(self, db: Database, job: Job, interrupted: threading.Event) -> None:
        self.db = db
        self.job_id = job.id
        self.epoch = job.epoch
        self.request = job.request
        self.alive_at = time.monotonic()  # when the work last gave a sign of life
        self._interrupted = interrupted
        self._lease = Lease(db, job.id, job.epoch)

    @property
    def canceled(self) -> bool:
        """Whether somebody asked for the job to stop for good."""
        return self._lease.canceled

    @property
    def lost(self) -> bool:
        """Whether the lease went to another epoch, or could not be renewed for too long to be sure."""
        return self._lease.lost

    @property
    def interrupted(self) -> bool:
        """Whether the process has to leave, and the job is to go on elsewhere from the state it is left in."""
        return self._interrupted.is_set() and not self.canceled and not self.lost

    def sign(self) -> None:
        """Give a sign of life: without one for long, the work is held to be stuck (worker/watchdog.py)."""
        self.alive_at = time.monotonic()

    def should_stop(self) -> bool:
        """True when the work must stop at its next step, for whichever reason. Asking is a sign of life."""
        self.sign()
        return self.canceled or self._interrupted.is_set() or self.lost

    def publish(self, change: Callable[[Session, Job], None]) -> None:
        """Apply `change` in one transaction, only while we hold the job; LeaseLost otherwise. A database that is away
        or full is waited for, as `patiently` does."""

        def apply() -> None:
            with self.db.begin() as session:
                change(session, self._held(session))

        self.patiently(apply)

    def patiently(self, work: Callable[[], Done]) -> Done:
        """What `work` gives, which is done again while there is no room on the disk: that is nobody's failure, and the
        job is kept meanwhile. StorageFull once it has to stop; a database that is away is waited for as long as the job
        is surely ours."""
        told = False
        while True:
            self.sign()
            try:
                return work()
            except Unavailable as error:
                full = isinstance(error, StorageFull)
                if self.should_stop() if full else error.error_code != "database_unavailable" or self.lost:
                    raise
                log.warning("job_waits", job=self.job_id, reason=error.message)
                if full and not told:
                    told = self._say_full()
            time.sleep(ROOM_SECONDS)

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

    def give_back(self, reason: str, *, counted: bool = True) -> None:
        """Hand the job to another attempt, because of something that is not the job's fault but may last; `counted`
        where too many such attempts shall end it."""

        def change(session: Session, job: Job) -> None:
            if not counted:
                job.fruitless = max(0, job.fruitless - 1)
            requeue_or_fail(session, job, reason)

        try:
            self.publish(change)
        except LeaseLost:  # it has ended, or somebody else has it
            return
        except Unavailable as error:  # then its lease ends
            log.warning("job_not_given_back", job=self.job_id, reason=error.message)

    def leave(self) -> None:
        """Stop renewing, and leave the job to whoever else holds it."""
        self._lease.close()

    def release(self) -> None:
        """Stop renewing. A job that is still running after an interruption goes back to the queue at once."""
        self.leave()
        if self._interrupted.is_set() and not self.lost:
            with contextlib.suppress(LeaseLost, Unavailable):
                self.publish(_drain)

    def _say_full(self) -> bool:
        """Say that the job waits for room; whether that could be written."""
        message = "The disk is full. Waiting for room; what was saved is kept."
        try:
            with self.db.begin() as session:
                self._held(session).message = message
                tell(session, self.job_id, "warning", {"kind": "storage_full", "message": message})
        except Unavailable:
            return False
        return True

    def _held(self, session: Session) -> Job:
        query = select(Job).where(Job.id == self.job_id).with_for_update()
        job = session.scalars(query).one_or_none()
        if job is None or job.epoch != self.epoch or job.status != "running":
            self._lease.lose()
            raise LeaseLost(f"Job {self.job_id} is no longer held by epoch {self.epoch}.")
        return job


def _drain(session: Session, job: Job) -> None:
    job.fruitless = max(0, job.fruitless - 1)  # a drain is nobody's failure
    requeue_or_fail(session, job, "The worker was stopped.")


def claim(db: Database, job_id: str, interrupted: threading.Event, epoch: int | None = None) -> Claim | None:
    """Take a queued job by compare-and-set; None where another delivery was first, the job has ended, or it has come
    to another epoch than the one given.

    Setting `interrupted` asks for a stop at the next step with the state saved: the job then goes back to the queue.
    """
    with db.begin() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "queued" or epoch not in {None, job.epoch}:
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
        if not changed(session, taken.values(values)):
            return None
        session.refresh(job)
        tell(session, job_id, "status", {"status": "running", "attempt": job.attempts})
    log.info("job_claimed", job=job_id, epoch=job.epoch, attempt=job.attempts, pid=os.getpid())
    return Claim(db, job, interrupted)


def join(db: Database, job_id: str, epoch: int, interrupted: threading.Event) -> Claim | None:
    """A second hold on a running job, for a process that its holder started; None where another epoch has it. Leave it
    with `leave`: what becomes of the job is its holder's to say."""
    with db.read() as session:
        job = session.get(Job, job_id)
        if job is None or job.status != "running" or job.epoch != epoch:
            return None
        return Claim(db, job, interrupted)


def _requeue(session: Session, job: Job, message: str) -> None:
    _move(session, job, "queued", message=message)
    job.epoch += 1
    job.lease_until = None
    job.dispatched_at = None
    job.finished_at = None
    job.cancel_requested = False
    job.cancel_requested_at = None


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
    """Add an event to a job, inside the caller's transaction, and owe it to whoever asked to be told."""
    session.add(JobEvent(job_id=job_id, type=type_, data=data))
    webhooks.note(session, job_id, type_, data)
