"""Ganvas's RQ worker: survives Redis outages, leaves no orphan, and drains instead of waiting for hours.

The numbers E1-E17 name the measured faults of RQ 3.0 that force each override: docs/adr/0001-leases-over-rq.md.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import structlog
from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job

from app.core import jobs
from app.core.db import Database
from app.core.errors import GanvasError
from app.core.queue import TASKS, may_run

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PARENT_POLL_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 18.0  # for the step that runs and the state that is saved; the supervisor waits 20
HEARTBEAT_SECONDS: Final = 5  # how often the parent looks after a busy horse
REDIS_SECONDS: Final = 2.0  # between two questions to a Redis that is away, full or loading

# Set by SIGUSR1: finish the step, save the state, give the job back. A task hands it to its claim.
interrupted = threading.Event()
_breakable = threading.Event()


class Interrupted(BaseException):
    """Breaks off what is not worth finishing; no `except Exception` can eat it."""


class GanvasWorker(Worker):
    """One queue, one job at a time, each in a forked work-horse.

    It lives on whatever Redis does: being away, full (which is an error of its own kind), flushed or an old dump costs
    heartbeats and deliveries, which the reconciler makes again. It takes no commands from there either: jobs are
    canceled in the database.
    """

    max_connection_wait_time = 5.0  # seconds; it would be a minute before a worker noticed that Redis is back

    def __init__(self, queue: str, *, db: Database, niceness: int, step_minutes: float, **rq: Any) -> None:
        super().__init__([queue], job_monitoring_interval=HEARTBEAT_SECONDS, **rq)
        self.db = db
        self.niceness = niceness
        self.step_seconds = step_minutes * 60  # a horse may be in one step for so long
        self._held: tuple[str, int] | None = None  # job and epoch that the horse was given
        self._doubted = False  # whether the horse should have left when it was last looked at

    def subscribe(self) -> None:
        """Listen to no commands: whoever writes to Redis could stop any job."""

    def check_for_suspension(self, burst: bool) -> None:
        """Be suspended by nobody."""

    def run_maintenance_tasks(self) -> None:
        """Tidy up in Redis when it lets us."""
        with _unless_redis_fails("maintenance"):
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Be seen by other workers when Redis lets us."""
        with _unless_redis_fails("heartbeat"):
            super().heartbeat(timeout, pipeline)

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """Show in Redis what we are doing, and remember it in any case."""
        self._state = state
        with _unless_redis_fails("state"):
            super().set_state(state, pipeline)

    def register_death(self) -> None:
        """Sign off when Redis lets us."""
        with _unless_redis_fails("death"):
            super().register_death()  # type: ignore[no-untyped-call]

    def set_shutdown_requested_date(self) -> None:
        """Tell nobody: this is called by a signal handler, in the middle of anything."""

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a delivery, also from a Redis that answers with errors (E14)."""
        while True:
            try:
                return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            except RedisError as error:
                log.warning("redis_failed", at="dequeue", reason=str(error))
                time.sleep(REDIS_SECONDS)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the tasks this queue may run; anything else that appeared in Redis is dropped (E7)."""
        with _unless_redis_fails("execution"):
            if may_run(queue.name, job.func_name):
                super().execute_job(job, queue)
            else:
                log.error("task_refused", function=job.func_name, queue=queue.name)
                job.delete()
        self.executions.clear()  # one that Redis did not take would pass for the next job's

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Let no pooled database connection cross the fork. A horse that is born into a shutdown is told."""
        self.db.close()
        self._held, self._doubted = _given(job), False
        super().fork_work_horse(job, queue)
        if self._shutdown_requested_date is not None:
            os.kill(self.horse_pid, signal.SIGUSR1)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the fork: ask to be told when the parent dies, before anything else (E1, E10)."""
        parent = self.pid or 0
        signal.signal(signal.SIGUSR1, interrupt)
        follow_parent(parent)
        os.nice(self.niceness)
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """A SIGTERM that comes to the horse itself, as systemd sends it, is a drain too."""
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGTERM, interrupt)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """A Redis that is away costs a heartbeat, not the training (E3, E12, E14)."""
        self._end_overdue()
        with _unless_redis_fails("heartbeat"):
            super().maintain_heartbeats(job, execution)

    def handle_warm_shutdown_request(self) -> None:
        """SIGTERM: have the horse save its state and leave, instead of waiting for the whole job (E11)."""
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGUSR1)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Once the horse is gone it holds nothing, however it went: hand its row on, the lease would take half a
        minute, and Redis need not be asked."""
        left = super().wait_for_horse()
        if self._held is not None:
            try:
                with self.db.begin() as session:
                    jobs.holder_died(session, *self._held)
            except GanvasError as error:
                log.warning("job_not_handed_on", job=self._held[0], reason=error.message)
        return left

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: Any) -> None:
        """Say so."""
        log.warning("horse_died", job=job.id, wait_status=ret_val)

    def _end_overdue(self) -> None:
        """Kill a horse that should have left, when it is still there at the next look."""
        if self._held is None:
            return
        try:
            with self.db.read() as session:
                why = jobs.overdue(session, *self._held, self.step_seconds)
        except GanvasError as error:
            log.warning("horse_not_looked_after", job=self._held[0], reason=error.message)
            return
        if why is not None and self._doubted:
            log.warning("horse_killed", job=self._held[0], reason=why)
            self.kill_horse()
        self._doubted = why is not None


@contextlib.contextmanager
def _unless_redis_fails(what: str) -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        log.warning("redis_failed", at=what, reason=str(error))


def _given(job: Job) -> tuple[str, int] | None:
    """Job and epoch of a delivery; None of one that is of no job, or of a version that did not say the epoch."""
    if job.func_name not in TASKS.values() or len(job.args) != 2:
        return None
    return str(job.args[0]), int(job.args[1])


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Ask for an end, and make one if none comes: nobody is left who would kill a horse without a parent."""
    if not interrupted.is_set():
        interrupted.set()
        last_resort = threading.Timer(DRAIN_SECONDS, os._exit, (1,))  # the lease hands the job on
        last_resort.daemon = True
        last_resort.start()
        if _breakable.is_set():
            raise Interrupted


@contextlib.contextmanager
def breakable() -> Iterator[None]:
    """An interruption raises Interrupted within, in the main thread: for preparations of seconds, such as imports, that
    have no steps at which to heed it."""
    _breakable.set()
    try:
        if interrupted.is_set():
            raise Interrupted
        yield
    finally:
        _breakable.clear()


def follow_parent(parent: int) -> None:
    """SIGUSR1 for this process when its parent dies; at once when that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
        if os.getppid() != parent:  # it died between the fork and the prctl
            interrupted.set()
    else:
        threading.Thread(target=_poll_parent, args=(parent,), daemon=True).start()


def tied_to(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """What a child of this process runs before its program, to be sent a signal when we die; None where only Linux can.

    One that its parent starts in a thread would be sent it when that thread ends.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # found before the fork: finding takes a lock

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return tie


def _poll_parent(parent: int) -> None:
    while os.getppid() == parent:
        interrupted.wait(PARENT_POLL_SECONDS)
    interrupted.set()
