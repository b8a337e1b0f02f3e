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
from app.core.db import Database
from app.core.errors import SettingsInvalid
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
RESULT_TTL_SECONDS: Final = 60  # RQ's own outcome is advisory, the row is the truth


def connect(url: str) -> redis.Redis:
    """A Redis client with bounded waits; nothing is sent until it is used. SettingsInvalid for what is no URL."""
    try:
        return redis.Redis.from_url(
            url, socket_timeout=SOCKET_TIMEOUT_SECONDS, socket_connect_timeout=SOCKET_TIMEOUT_SECONDS
        )
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
        self.connection = connect(url)

    def dispatch(self, job: Job) -> bool:
        """Enqueue one delivery of a queued job; False while Redis is away, and the reconciler tries again."""
        queue = RQQueue(job.kind, connection=self.connection, serializer=JSONSerializer)
        rq_id = f"{job.id}-{job.epoch}"
        try:
            if not self._waits(queue, rq_id):
                with contextlib.suppress(DuplicateJobError):
                    self._enqueue(queue, job, rq_id)
        except RedisError as error:
            log.warning("dispatch_failed", job=job.id, reason=str(error))
            return False
        with self.db.begin() as session:
            jobs.mark_dispatched(session, job.id, job.epoch)
        return True

    def calibrate(self) -> bool:
        """Have a worker look at which speeds are wanted, unless one is about to; False while Redis is away."""
        queue = RQQueue(CALIBRATE_QUEUE, connection=self.connection, serializer=JSONSerializer)
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
        """Hand silent jobs to new epochs and ring for every queued job that nobody was told of; how many rang."""
        with self.db.begin() as session:
            waiting = jobs.reconcile(session)
        return sum(self.dispatch(job) for job in waiting)

    def is_up(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

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
            args=(job.id,),
            job_id=rq_id,
            unique=True,
            timeout=-1,  # our own lease bounds a job; RQ's alarm can be swallowed by an except clause (E8)
            result_ttl=RESULT_TTL_SECONDS,
            failure_ttl=RESULT_TTL_SECONDS,
        )
