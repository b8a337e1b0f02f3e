"""Trainings of a studio that is broken meanwhile: told by its database, which is there whatever was killed."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import psutil
from sqlalchemy import func, select

from app.core import jobs
from app.core.db import Database
from app.core.records import Checkpoint, Job, JobEvent, utc_now
from app.core.settings import Settings
from app.core.storage import Storage
from benchmarks import resume_kills
from tests.studio import JOB_SECONDS, Studio

AGAIN_SECONDS = 45.0  # after a kill somebody trains again within this
SAMPLE_SECONDS = 0.05
AT_WORK = ("log", "tick", "snapshot")  # events of a training that has its state and steps on
REFERENCE = "uninterrupted"


class Trainings:
    """The same training over and over, each of which must end with the weights of the uninterrupted first one."""

    def __init__(self, studio: Studio, kimg: float) -> None:
        self.studio = studio
        self.db = Database(Settings(data=studio.folder).database)
        self.storage = Storage(studio.folder / "blobs")
        self.dataset = studio.upload()
        self.accepted: list[str] = []
        self._config = resume_kills.small_config("dcgan", kimg).model_dump(mode="json")
        self.submit(REFERENCE)
        assert studio.finish(self.accepted[0])["status"] == "succeeded"

    def submit(self, name: str) -> None:
        """Ask for one; the answer is a promise."""
        body = {"dataset": self.dataset, "name": name, "config": self._config}
        answer = self.studio.client.post("/v1/training/jobs", json=body)
        assert answer.status_code == 202, answer.text
        self.accepted.append(answer.json()["id"])

    def keep_waiting(self, count: int) -> None:
        """See to it that so many wait in line or train."""
        with self.db.read() as session:
            open_ones = select(func.count()).select_from(Job).where(Job.status.not_in(jobs.ENDED), Job.kind == "train")
            there = session.scalar(open_ones) or 0
        for _ in range(count - there):
            self.studio.wait_for(self._api_answers)
            self.submit(f"training-{len(self.accepted)}")

    def begin(self) -> None:
        """Have one at work."""
        self.wait_for_work(utc_now(), JOB_SECONDS)

    def _api_answers(self) -> bool:
        try:
            return bool(self.studio.client.get("/readyz").is_success)
        except httpx.TransportError:
            return False

    def row(self, job_id: str) -> Job:
        """A job's row."""
        with self.db.read() as session:
            return jobs.find(session, job_id)

    def running(self) -> Job | None:
        """The training that a worker holds."""
        with self.db.read() as session:
            return session.scalars(select(Job).where(Job.kind == "train", Job.status == "running")).one_or_none()

    def events(self, job_id: str) -> list[JobEvent]:
        """All that a job told."""
        with self.db.read() as session:
            return list(session.scalars(select(JobEvent).where(JobEvent.job_id == job_id).order_by(JobEvent.id)))

    def let_go(self, job_id: str, epoch: int) -> float | None:
        """When the holder of an epoch gave the job back by itself, in seconds since 1970; None where others had to."""
        told = [event for event in self.events(job_id) if event.type == "status" and "message" in event.data]
        back = [event for event in told if event.data["status"] == "queued"]
        if len(back) >= epoch and back[epoch - 1].data["message"].startswith("The worker was stopped."):
            return back[epoch - 1].created_at.timestamp()
        return None

    def is_at_work(self, since: datetime) -> bool:
        """Whether a training that was taken since has its state, and steps."""
        with self.db.read() as session:
            query = select(JobEvent).where(JobEvent.created_at >= since).order_by(JobEvent.id)
            taken: set[str] = set()
            for event in session.scalars(query):
                if event.type == "status" and event.data["status"] == "running":
                    taken.add(event.job_id)
                elif event.type in AT_WORK and event.job_id in taken:
                    return True
        return False

    def wait_for_work(self, since: datetime, seconds: float = AGAIN_SECONDS) -> float:
        """Seconds until `is_at_work`, on another training if the last one ended; it fails after so many."""
        self.keep_waiting(1)
        began = time.monotonic()
        self.studio.wait_for(lambda: self.is_at_work(since), seconds)
        return time.monotonic() - began

    def finish(self, seconds: float) -> None:
        """Wait for all to end."""
        deadline = time.monotonic() + seconds
        for job_id in self.accepted:
            self.studio.wait_for(lambda job=job_id: self.row(job).status in jobs.ENDED, deadline - time.monotonic())

    def check(self) -> float:
        """Every promise of every training, once all have ended; the most that any had to do again, in kimg."""
        found = resume_kills.Studio(self.studio.folder, self.db, self.storage, self.dataset)
        expected = resume_kills.learnt(found, self.accepted[0])
        redone = 0.0
        for job_id in self.accepted:
            row, events = self.row(job_id), self.events(job_id)
            assert row.status == "succeeded", (row.message, row.error)
            assert row.result is not None
            assert row.result["report_sha256"]
            assert resume_kills.learnt(found, job_id) == expected
            assert [event.data["status"] for event in events if event.type == "status"].count("succeeded") == 1
            published = [event.data["kimg"] for event in events if event.type == "snapshot"]
            assert published == sorted(set(published)), "a checkpoint was published twice"
            with self.db.read() as session:
                rows = select(func.count()).select_from(Checkpoint).where(Checkpoint.job_id == job_id)
                assert session.scalar(rows) == len(published)
            redone = max(redone, redone_kimg(events))
        return redone

    def close(self) -> None:
        """Let go of the database."""
        self.db.close()


def redone_kimg(events: list[JobEvent]) -> float:
    """The most that an attempt had to do again. Each must go on from the very last state that was ever saved."""
    saved = told = redone = 0.0
    for event in events:
        kimg = event.data.get("kimg", 0.0)
        if event.type == "log" and event.data["message"].startswith("Goes on from"):
            assert kimg == saved, f"went on from {kimg}, although {saved} was saved"
            redone = max(redone, told - kimg)
            told = kimg
        elif event.type == "snapshot" or (event.type == "log" and event.data["message"].startswith("Saved at")):
            saved = told = kimg
        elif event.type == "tick":
            told = kimg
    return redone


@dataclass
class Holder:
    """A process that took a job, and when it was first seen to be gone."""

    job: str
    epoch: int
    pid: int
    claimed_at: float
    gone_at: float | None = None


@dataclass
class Watch:
    """Who works when: the processes that the log says took jobs, looked at all the time."""

    log: Path
    holders: list[Holder] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator["Watch"]:
        """Watch from a thread."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()

    def _look(self) -> None:
        with self.log.open() as log:
            rest = ""
            while not self._over.wait(SAMPLE_SECONDS):
                *lines, rest = (rest + log.read()).split("\n")
                self.holders += [holder for line in lines if (holder := _claimed(line)) is not None]
                for holder in self.holders:
                    if holder.gone_at is None and not is_alive(holder.pid):
                        holder.gone_at = time.time()

    def overlaps(self, let_go: Callable[[str, int], float | None]) -> list[tuple[Holder, Holder]]:
        """Holders of one job of whom the later began before the earlier was gone or had let go, by `let_go`."""
        found = []
        for holder in self.holders:
            for later in self.holders:
                if later.job == holder.job and later.epoch > holder.epoch:
                    ends = [end for end in (holder.gone_at, let_go(holder.job, holder.epoch)) if end is not None]
                    if not ends or min(ends) > later.claimed_at + 2 * SAMPLE_SECONDS:
                        found.append((holder, later))
        return found


def _claimed(line: str) -> Holder | None:
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and said.get("event") == "job_claimed":
            at = datetime.fromisoformat(said["timestamp"]).timestamp()
            return Holder(said["job"], said["epoch"], said["pid"], at)
    return None


def is_alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def below(process: psutil.Process) -> list[int]:
    """All processes that a process has started, and they in turn."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in process.children(recursive=True)]
    return []


def torn_files(folder: Path) -> set[str]:
    """Files in the making, or left half-made."""
    with contextlib.suppress(FileNotFoundError):
        return {file.name for file in (folder / "blobs" / "tmp").iterdir()}
    return set()
