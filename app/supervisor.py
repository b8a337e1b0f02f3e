"""`ganvas up`: embedded Redis, workers and API as children; restarts what dies, drains on SIGTERM, leaves nothing."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import redis
import structlog

from app import embedded_redis
from app.core.errors import SettingsInvalid, Unavailable
from app.core.queue import QUEUES, connect
from app.core.settings import Settings
from app.core.storage import Storage

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
POLL_SECONDS: Final = 0.2
DRAIN_SECONDS: Final = 20.0  # a worker saves its state and the API answers what it took within this
FIRST_BACKOFF_SECONDS: Final = 0.5
LAST_BACKOFF_SECONDS: Final = 10.0
HEALTHY_SECONDS: Final = 30.0  # a child that lived this long starts over with the first back-off
REDIS_START_SECONDS: Final = 15.0


@dataclass
class Child:
    """One process of the studio and when it may be started again."""

    name: str
    command: list[str]
    inherit: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    backoff: float = FIRST_BACKOFF_SECONDS
    restart_at: float = field(default=0.0)

    def start(self) -> None:
        """Start it in a process group of its own, so that Ctrl-C reaches only us, and tie its life to ours.

        Not in a session of its own: Linux shares the processors between sessions first, and a worker's niceness would
        count for nothing against the API's.
        """
        self.process = subprocess.Popen(
            self.command,
            pass_fds=self.inherit,
            process_group=0,
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one prctl, no locks
        )
        self.started = time.monotonic()

    def tend(self) -> None:
        """Start it again when it has died, later and later while it keeps dying."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            lived = now - self.started
            log.warning("child_died", child=self.name, status=self.process.returncode, lived_seconds=round(lived, 1))
            self.backoff = FIRST_BACKOFF_SECONDS if lived > HEALTHY_SECONDS else self.backoff
            self.restart_at = now + self.backoff
            self.backoff = min(2 * self.backoff, LAST_BACKOFF_SECONDS)
            self.process = None
        if now >= self.restart_at:
            self.start()

    def signal(self, number: int) -> None:
        """Send a signal, when it still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def stop(self, deadline: float) -> None:
        """Wait until the deadline for it to leave, then kill it."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("child_killed", child=self.name)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Supervisor:
    """The processes of one studio, in the order they start: Redis where none is given, workers, API."""

    def __init__(self, settings: Settings, listener: socket.socket | None) -> None:
        self.settings = settings
        self.stopping = threading.Event()
        self.redis = None if settings.redis_url else Child("redis", embedded_redis.command(settings))
        self.children = [Child(f"worker-{queue}", [sys.executable, "-m", "worker", queue]) for queue in QUEUES]
        if listener is not None:
            api = [sys.executable, "-m", "app.cli", "api", "--fd", str(listener.fileno())]
            self.children.append(Child("api", api, inherit=(listener.fileno(),)))

    def start(self) -> None:
        """Start everything once; Unavailable where Redis does not answer."""
        _wait_for_redis(self.settings, self._tend_redis)
        for child in self.children:
            child.start()

    def tend(self) -> None:
        """Keep everything alive until `stopping` is set."""
        while not self.stopping.wait(POLL_SECONDS):
            self._tend_redis()
            for child in self.children:
                child.tend()

    def close(self) -> None:
        """Drain: the API finishes what it took, workers save their state, Redis goes last."""
        deadline = time.monotonic() + DRAIN_SECONDS + self.settings.drain_notice_seconds
        for child in self.children:
            child.signal(signal.SIGTERM)
        for child in self.children:
            child.stop(deadline)
        if self.redis is not None:
            self.redis.signal(signal.SIGTERM)
            self.redis.stop(time.monotonic() + DRAIN_SECONDS)

    def _tend_redis(self) -> None:
        """Keep Redis alive; one that ends with an error as soon as it has started cannot read what it kept."""
        if self.redis is None:
            return
        process, lived = self.redis.process, time.monotonic() - self.redis.started
        if process is not None and (process.poll() or 0) > 0 and lived < REDIS_START_SECONDS:
            embedded_redis.set_aside(self.settings)
        self.redis.tend()


@contextmanager
def running(settings: Settings, *, listener: socket.socket | None = None) -> Iterator[Supervisor]:
    """A studio's processes for the length of a `with` block; tending them is the caller's."""
    with only_one(settings):
        Storage(settings.data / "blobs").clear_scratch()
        supervisor = Supervisor(settings, listener)
        try:
            supervisor.start()
            yield supervisor
        finally:
            supervisor.close()


def up(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Run a studio until SIGTERM, SIGINT or SIGHUP; `announce` is called once everything has been started."""
    with running(settings, listener=listener) as supervisor:

        def stop(_signal: int, _frame: FrameType | None) -> None:
            supervisor.stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, stop)
        announce()
        supervisor.tend()


def listen(settings: Settings) -> socket.socket:
    """The listening socket; the supervisor keeps it, so that callers wait instead of failing while the API restarts.

    SettingsInvalid where the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        message = f"Port {settings.port} on {settings.host} cannot be used: {error.strerror}."
        raise SettingsInvalid(f"{message} Set GANVAS_PORT to a free one.", param="GANVAS_PORT") from error
    listener.listen(2048)
    return listener


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the data folder for this process; SettingsInvalid where another studio has it or it cannot be written."""
    folder = settings.data.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "ganvas.lock").open("w")
    except OSError as error:
        message = f"The data folder {folder} cannot be written: {error.strerror}. Set GANVAS_DATA to one you may write."
        raise SettingsInvalid(message, param="GANVAS_DATA") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another studio already runs on the data folder {folder}. Set GANVAS_DATA to another."
            raise SettingsInvalid(message, param="GANVAS_DATA") from error
        yield


def _wait_for_redis(settings: Settings, tend: Callable[[], None]) -> None:
    deadline = time.monotonic() + REDIS_START_SECONDS
    connection = connect(settings.redis)
    while True:
        tend()
        try:
            connection.ping()
            break
        except redis.RedisError as error:
            if settings.redis_url or time.monotonic() > deadline:
                where = settings.redis_url or "the embedded server; its log is redis/redis.log in the data folder"
                raise Unavailable(f"Redis does not answer at {where}: {error}.") from error
            time.sleep(0.05)
    connection.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
