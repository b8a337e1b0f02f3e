"""The parts of a studio, to be broken one by one: a Redis, API processes, workers; and what became of jobs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import redis
from sqlalchemy import func, select

from app import embedded_redis
from app.core.db import Database
from app.core.queue import connect
from app.core.records import Job, JobEvent
from app.core.settings import Settings
from app.core.storage import Storage
from tests.conftest import publish_tiny

START_SECONDS = 90.0
MODEL = "tiny"
SMALL_GRID = {"kind": "grid", "model": MODEL, "seeds": [1], "columns": 1}  # one picture of 32 px: a quick job


def wait_for(condition: Callable[[], bool], seconds: float, what: str = "") -> float:
    """Return when the condition holds, with how long that took; fail when it does not within `seconds`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what or condition}"
        time.sleep(0.05)
    return time.monotonic() - began


def environment(folder: Path, **own: str) -> dict[str, str]:
    """The variables of a studio in this folder, and none of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GANVAS_")}
    quiet = {"GANVAS_IMPORT_SAMPLES": "false", "GANVAS_LOG_LEVEL": "error", "GANVAS_THREADS": "1"}
    return clean | quiet | {"GANVAS_DATA": str(folder), "GANVAS_MAX_QUEUED_JOBS": "100000"} | own


class RedisServer:
    """A Redis of one's own, that nobody starts again but the test."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.settings.redis

    def start(self) -> None:
        """Start it from what its folder holds, and return when it answers."""
        self._process = subprocess.Popen(embedded_redis.command(self.settings))
        with connect(self.url) as connection:
            wait_for(lambda: _answers(connection), START_SECONDS, "Redis answers")

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Take commands and answer none of them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen for the length of a `with` block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def flush(self) -> None:
        """Forget everything."""
        with connect(self.url) as connection:
            connection.flushall()

    def configure(self, name: str, value: str) -> None:
        """CONFIG SET."""
        with connect(self.url) as connection:
            connection.config_set(name, value)

    def dump(self, place: Path) -> None:
        """Copy what it would start from."""
        shutil.copytree(self._folder, place, ignore=shutil.ignore_patterns("*.sock"))

    def restore(self, place: Path) -> None:
        """kill -9, and start from an older copy."""
        self.kill()
        shutil.rmtree(self._folder)
        shutil.copytree(place, self._folder)
        self.start()

    def close(self) -> None:
        """End it, frozen or not."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def _folder(self) -> Path:
        return self.settings.data.absolute() / "redis"


class Replica:
    """One `ganvas api` process; a later one takes the same port."""

    def __init__(self, environment_: dict[str, str]) -> None:
        self._environment = environment_ | {"GANVAS_PORT": str(free_port())}
        self.url = f"http://127.0.0.1:{self._environment['GANVAS_PORT']}"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "app.cli", "api"], env=self._environment)

    def is_ready(self) -> bool:
        """Whether it takes work."""
        assert self.process.poll() is None, f"the API ended with {self.process.returncode}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def wait(self) -> Self:
        """Return when it is ready."""
        wait_for(self.is_ready, START_SECONDS, "the API is ready")
        return self

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again after its end; it is ready some seconds later."""
        self.process.wait()
        self.process = self._start()

    def terminate(self) -> None:
        """SIGTERM; it may go on for a while."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.kill()


class Parts:
    """Redis, workers and API processes on one folder, and its database."""

    def __init__(self, folder: Path, queues: Sequence[str], replicas: int, **own: str) -> None:
        self.redis = RedisServer(folder)
        self.environment = environment(folder, GANVAS_REDIS_URL=self.redis.url, **own)
        self.db = Database(Settings(data=folder).database)
        self.db.migrate()
        publish_tiny(self.db, Storage(folder / "blobs"), MODEL)
        command = [sys.executable, "-m", "worker"]
        self._queues = list(queues)
        self.workers = [subprocess.Popen([*command, queue], env=self.environment) for queue in queues]
        self.replicas = [Replica(self.environment) for _ in range(replicas)]
        for replica in self.replicas:
            replica.wait()

    def tend(self) -> int:
        """Start workers again that ended, as the supervisor would; how many."""
        ended = [index for index, worker in enumerate(self.workers) if worker.poll() is not None]
        for index in ended:
            command = [sys.executable, "-m", "worker", self._queues[index]]
            self.workers[index] = subprocess.Popen(command, env=self.environment)
        return len(ended)

    def unfinished(self) -> int:
        """Jobs that have not ended."""
        with self.db.read() as session:
            query = select(func.count()).select_from(Job).where(Job.status.in_(("queued", "running")))
            return session.scalar(query) or 0

    def count(self) -> int:
        """All jobs."""
        with self.db.read() as session:
            return session.scalar(select(func.count()).select_from(Job)) or 0

    def outcomes(self) -> dict[str, tuple[str, int]]:
        """By job: how it ended, and how often it was begun."""
        with self.db.read() as session:
            ended = dict(session.execute(select(Job.id, Job.status)).all())
            told = session.execute(select(JobEvent.job_id, JobEvent.data).where(JobEvent.type == "status"))
            begun = Counter(job for job, data in told if data["status"] == "running")
        return {job: (status, begun[job]) for job, status in ended.items()}

    def errors(self) -> list[dict[str, Any]]:
        """What failed jobs say."""
        with self.db.read() as session:
            return [error for error in session.scalars(select(Job.error)) if error]

    def close(self) -> None:
        """End everything."""
        self.redis.thaw()
        for replica in self.replicas:
            replica.close()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.redis.close()
        self.db.close()


def order(client: httpx.Client, key: str | None = None) -> httpx.Response:
    """Ask for a quick job, with an Idempotency-Key where one is given."""
    return client.post("/v1/renders", json=SMALL_GRID, headers={} if key is None else {"idempotency-key": key})


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def _answers(connection: redis.Redis) -> bool:
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False
