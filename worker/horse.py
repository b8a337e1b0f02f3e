"""Ganvas's RQ worker: survives Redis outages, leaves no orphan, and drains instead of waiting for hours.

The numbers E1-E17 name the measured faults of RQ 3.0 that force each override: docs/adr/0001-leases-over-rq.md.
"""

import ctypes
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Final

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job

from app.core import jobs
from app.core.db import Database
from app.core.queue import may_run

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PARENT_POLL_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 20.0  # for the step that runs and the state that is saved
HEARTBEAT_SECONDS: Final = 5  # how often the parent looks after a busy horse

# Set by SIGUSR1: finish the step, save the state, give the job back. A task hands it to its claim.
interrupted = threading.Event()


class GanvasWorker(Worker):
    """One queue, one job at a time, each in a forked work-horse."""

    def __init__(self, queue: str, *, db: Database, niceness: int, **rq: Any) -> None:
        super().__init__([queue], job_monitoring_interval=HEARTBEAT_SECONDS, **rq)
        self.db = db
        self.niceness = niceness

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run the tasks this queue may run; anything else that appeared in Redis is dropped (E7)."""
        if not may_run(queue.name, job.func_name):
            log.error("task_refused", function=job.func_name, queue=queue.name)
            job.delete()
            return
        super().execute_job(job, queue)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Let no pooled database connection cross the fork."""
        self.db.close()
        super().fork_work_horse(job, queue)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """In the fork: ask to be told when the parent dies, before anything else (E1, E10)."""
        parent = self.pid or 0
        signal.signal(signal.SIGUSR1, interrupt)
        follow_parent(parent)
        os.nice(self.niceness)
        super().main_work_horse(job, queue)

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """A Redis that is away costs a heartbeat, not the training (E3, E12)."""
        try:
            super().maintain_heartbeats(job, execution)
        except (RedisConnectionError, RedisTimeoutError) as error:
            log.warning("heartbeat_missed", job=job.id, reason=str(error))

    def handle_warm_shutdown_request(self) -> None:
        """SIGTERM: have the horse save its state and leave, instead of waiting for the whole job (E11)."""
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGUSR1)

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: Any) -> None:
        """The horse died under its job: hand the row on now, the lease would take half a minute."""
        log.warning("horse_died", job=job.id, wait_status=ret_val)
        job_id, _, epoch = job.id.rpartition("-")
        with self.db.begin() as session:
            jobs.holder_died(session, job_id, int(epoch))


def interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Ask for an end, and make one if none comes: nobody is left who would kill a horse without a parent."""
    if not interrupted.is_set():
        interrupted.set()
        last_resort = threading.Timer(DRAIN_SECONDS, os._exit, (1,))  # the lease hands the job on
        last_resort.daemon = True
        last_resort.start()


def follow_parent(parent: int) -> None:
    """SIGUSR1 for this process when its parent dies; at once when that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
        if os.getppid() != parent:  # it died between the fork and the prctl
            interrupted.set()
    else:
        threading.Thread(target=_poll_parent, args=(parent,), daemon=True).start()


def _poll_parent(parent: int) -> None:
    while os.getppid() == parent:
        interrupted.wait(PARENT_POLL_SECONDS)
    interrupted.set()
