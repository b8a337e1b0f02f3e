"""Receivers of webhooks on real sockets, and a database with jobs that are told of."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.core import jobs, webhooks
from app.core.db import Database

SECRET = webhooks.new_secret()


@dataclass
class Receiver:
    """What a receiver answers, and what it has heard."""

    url: str
    statuses: list[int] = field(default_factory=list)  # of the first answers; then 204
    headers: dict[str, str] = field(default_factory=dict)  # of every answer
    busy: threading.Event = field(default_factory=threading.Event)  # while set, answers wait
    heard: list[tuple[dict[str, str], bytes, float]] = field(default_factory=list)  # headers, body, when

    def wait_for(self, count: int, seconds: float = 10) -> None:
        """Until so many requests have come."""
        deadline = time.monotonic() + seconds
        while len(self.heard) < count:
            assert time.monotonic() < deadline, f"{len(self.heard)} of {count} came"
            time.sleep(0.01)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            mine.heard.append(({name.lower(): value for name, value in self.headers.items()}, body, time.monotonic()))
            while mine.busy.is_set():
                time.sleep(0.01)
            with suppress(OSError):  # who asked may have gone
                self.send_response(mine.statuses.pop(0) if mine.statuses else 204)
                for name, value in mine.headers.items():
                    self.send_header(name, value)
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mine = Receiver(f"http://127.0.0.1:{server.server_port}/hooks?a=1")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield mine
        mine.busy.clear()
        server.shutdown()


@pytest.fixture
def raw_receiver() -> Iterator[Callable[[bytes, bytes, float], str]]:
    """Makes receivers that answer with a head and then with a piece again and again, each after a pause, for ever."""
    open_: list[socket.socket] = []

    def make(head: bytes, piece: bytes, pause_seconds: float) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        open_.append(listening)

        def answer() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(head)
                    while piece:
                        connection.sendall(piece)
                        time.sleep(pause_seconds)
                    while connection.recv(65_536):
                        pass

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield make
    for each in open_:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database of this test's own."""
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def started(db: Database) -> Callable[[str], jobs.Claim]:
    """Starts a job that is told of at a URL, whatever the URL: its first message is owed."""

    def start(url: str) -> jobs.Claim:
        with db.begin() as session:
            job = jobs.submit(session, "train", {"name": "a"})
            webhooks.attach(session, job.id, url, SECRET)
        claim = jobs.claim(db, job.id, threading.Event())
        assert claim is not None
        claim.leave()
        return claim

    return start


@pytest.fixture
def secret() -> str:
    """What all messages are signed with."""
    return SECRET
