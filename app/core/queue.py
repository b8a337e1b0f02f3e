"""Dispatch over RQ: rings the bell for a job that the database already holds."""

import contextlib
import time
from typing import Final

import redis
import structlog
from redis.exceptions import RedisError
from rq import Queue as RQQueue
from rq.exceptions import DuplicateJobError
from rq.serializers import JSONSerializer

from app.core import jobs
from app.core.db import Database, clock
from app.core.errors import GanvasError, SettingsInvalid, StorageFull
from app.core.lease import RENEW_SECONDS
from app.core.records import Job

log = structlog.get_logger(__name__)

# The only functions a worker will run, by the kind of job. RQ would import any dotted name that Redis holds.
TASKS: Final = {
    "prepare": "worker.tasks.prepare",
    "train": "worker.tasks.train",
    "render": "worker.tasks.render",
    "project": "worker.tasks.project",
}
# Measures how fast trainings run; with the preparations, for the queue of trainings may be taken for hours.
CALIBRATE: Final = "worker.tasks.calibrate"
CALIBRATE_QUEUE: Final = "prepare"
CALIBRATE_ID: Final = "calibrate-"
QUEUES: Final = tuple(TASKS)  # one queue per kind, one queue per worker process: docs/adr/0001, E6
SOCKET_TIMEOUT_SECONDS: Final = 5.0
RING_SECONDS: Final = 1.0  # whoever asked for a job waits no longer than this for a Redis that hangs
AWAY_SECONDS: Final = 3.0  # so long it is not asked again; the row is committed, and the reconciler rings
CLAIM_SECONDS: Final = 8.0  # a worker that took a delivery claims its job within this, or is held to be gone
RESULT_TTL_SECONDS: Final = 60  # RQ's own outcome is advisory, the row is the truth


def connect(url: str, *, timeout: float = SOCKET_TIMEOUT_SECONDS) -> redis.Redis:
    """A Redis client that waits `timeout` seconds at most; nothing is sent until it is used. SettingsInvalid for what
    is no URL."""
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=timeout)
    except ValueError as error:
        message = f"GANVAS_REDIS_URL {url!r} cannot be used: {error}. Write it as redis://host:6379/0."
        raise SettingsInvalid(message, param="GANVAS_REDIS_URL") from error


def may_run(queue: str, function: str | None) -> bool:
    """Whether a worker on this queue runs this function."""
    own = {TASKS[queue]} if queue in TASKS else set()
    return function in (own | {CALIBRATE} if queue == CALIBRATE_QUEUE else own)


class Dispatcher:
    """Puts job ids where workers listen. Losing any of it is harmless: the reconciler rings again."""

    def __init__(self, db: Database, url: str) -> None:
        self.db = db
        self.connection = connect(url, timeout=RING_SECONDS)
        self._away_until = 0.0  # by the monotonic clock
        self._full_until = 0.0  # by the monotonic clock: so long the disk of the database may have been full

    def dispatch(self, job: Job) -> bool:
        """Enqueue one delivery of a queued job; False while Redis is away, and the reconciler tries again."""
        if time.monotonic() < self._away_until or not self._ring(job):
            return False
        try:
            with self.db.begin() as session:
                jobs.mark_dispatched(session, [job])
        except GanvasError as error:  # the job is accepted all the same, and the reconciler will look again
            log.warning("dispatch_not_noted", job=job.id, reason=error.message)
        return True

    def calibrate(self) -> bool:
        """Have a worker look at which speeds are wanted, unless one is about to; False while Redis is away."""
        queue = self._queue(CALIBRATE_QUEUE)
        try:
            if not any(rq_id.startswith(CALIBRATE_ID) for rq_id in queue.get_job_ids()):
                rq_id = f"{CALIBRATE_ID}{time.time_ns()}"
                queue.enqueue_call(
                    CALIBRATE, job_id=rq_id, timeout=-1, result_ttl=RESULT_TTL_SECONDS, failure_ttl=RESULT_TTL_SECONDS
                )
        except RedisError as error:
            log.warning("calibration_not_dispatched", reason=str(error))
            return False
        return True

    def reconcile(self) -> int:
        """Hand silent jobs to new epochs and ring for every queued job that nobody was told of; how many rang.

        Behind a full disk, on which no holder could renew its lease, they are given time to.
        """
        try:
            with self.db.begin() as session:
                waiting = jobs.reconcile(session, hand_on=time.monotonic() >= self._full_until)
                now = clock(session)
        except StorageFull:
            self._full_until = time.monotonic() + 2 * RENEW_SECONDS
            raise
        known: list[Job] = []
        rung = 0
        try:
            in_line, taken = self._deliveries({job.kind for job in waiting})
        except RedisError as error:
            self._note_away(error)
            return 0
        for job in waiting:
            rq_id = f"{job.id}-{job.epoch}"
            if rq_id in taken and job.dispatched_at is not None and now - job.dispatched_at < CLAIM_SECONDS:
                continue
            if rq_id not in in_line:
                if not self._ring(job):
                    break  # the others would only wait for it, one after the other
                rung += 1
            known.append(job)
        if known:
            with self.db.begin() as session:
                jobs.mark_dispatched(session, known)
        return rung

    def is_up(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _ring(self, job: Job) -> bool:
        """Put a delivery of this epoch in line unless it is there; False while Redis is away."""
        queue = self._queue(job.kind)
        rq_id = f"{job.id}-{job.epoch}"
        try:
            if not self._waits(queue, rq_id):
                with contextlib.suppress(DuplicateJobError):
                    self._enqueue(queue, job, rq_id)
        except RedisError as error:
            self._note_away(error)
            return False
        self._away_until = 0.0
        return True

    def _note_away(self, error: RedisError) -> None:
        self._away_until = time.monotonic() + AWAY_SECONDS
        log.warning("dispatch_failed", reason=str(error))

    def _deliveries(self, kinds: set[str]) -> tuple[set[str], set[str]]:
        """Ids of the deliveries that wait in line, and of those that workers took and did not finish."""
        in_line: set[str] = set()
        taken: set[str] = set()
        for kind in kinds:
            queue = self._queue(kind)
            in_line |= set(queue.get_job_ids())
            half_way = self.connection.lrange(queue.intermediate_queue_key, 0, -1)
            started = self.connection.zrange(queue.started_job_registry.key, 0, -1)  # its own methods enqueue (E5)
            taken |= {entry.decode().partition(":")[0] for entry in (*half_way, *started)}
        return in_line, taken

    def _queue(self, kind: str) -> RQQueue:
        return RQQueue(kind, connection=self.connection, serializer=JSONSerializer)

    def _waits(self, queue: RQQueue, rq_id: str) -> bool:
        """Whether a delivery of this epoch is still in line; one that vanished half-way (E6) is dropped first."""
        if queue.get_job_position(rq_id) is not None:
            return True
        stale = queue.fetch_job(rq_id)
        if stale is not None:
            stale.delete()
        return False

    def _enqueue(self, queue: RQQueue, job: Job, rq_id: str) -> None:
        queue.enqueue_call(
            TASKS[job.kind],
            args=(job.id, job.epoch),
            job_id=rq_id,
            unique=True,
            timeout=-1,  # our own lease bounds a job; RQ's alarm can be swallowed by an except clause (E8)
            result_ttl=RESULT_TTL_SECONDS,
            failure_ttl=RESULT_TTL_SECONDS,
        )
