"""A server that is told to stop says so first, loses nothing meanwhile, and then goes."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from sse_starlette.sse import AppStatus

from app.core import jobs
from app.core.db import Database
from app.core.settings import Settings
from app.draining import DrainingServer
from app.studio import server_config

NOTICE_SECONDS = 2.0


class Serving(NamedTuple):
    """A server in a thread, and where it answers."""

    server: DrainingServer
    thread: threading.Thread
    url: str
    settings: Settings


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    monkeypatch.setattr(AppStatus, "should_exit", False)  # a stop would end the event streams of every later server
    leaving = threading.Event()
    settings = Settings(data=tmp_path, max_batch=2, threads=1)
    config = server_config(settings, leaving)
    config.host, config.port = "127.0.0.1", 0
    server = DrainingServer(config, leaving, NOTICE_SECONDS)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield Serving(server, thread, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", settings)
    server.should_exit = True
    thread.join()


def test_after_sigterm_it_is_not_ready_and_serves_on_until_the_notice_has_passed(serving: Serving) -> None:
    with httpx.Client(base_url=serving.url) as client:
        assert "connection" not in client.get("/v1/models").headers
        began = time.monotonic()
        serving.server.handle_exit(signal.SIGTERM, None)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "leaving")
        served = 0
        while serving.thread.is_alive() and time.monotonic() - began < NOTICE_SECONDS - 0.2:
            answer = client.get("/v1/models")
            assert answer.status_code == 200
            served += 1
            time.sleep(0.05)
        assert served >= 5
        assert answer.headers["connection"] == "close", "or a caller would find its connection closed in mid-request"
        serving.thread.join(timeout=10)
        assert time.monotonic() - began >= NOTICE_SECONDS
        with pytest.raises(httpx.ConnectError):
            client.get("/readyz")


def test_whoever_follows_a_job_is_sent_elsewhere_with_a_stream_that_ends_whole(serving: Serving) -> None:
    db = Database(serving.settings.database)
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "followed"}).id
    db.close()
    follow = {"accept": "text/event-stream"}
    with (
        httpx.Client(base_url=serving.url) as client,
        client.stream("GET", f"/v1/jobs/{job}/events", headers=follow) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "id: 1"
        serving.server.handle_exit(signal.SIGTERM, None)
        left = list(lines)  # to its end, without a complaint
        assert left[0] == "event: status"


def test_whoever_asks_twice_does_not_wait_for_the_notice(serving: Serving) -> None:
    serving.server.handle_exit(signal.SIGTERM, None)
    serving.server.handle_exit(signal.SIGTERM, None)
    began = time.monotonic()
    serving.thread.join(timeout=10)
    assert time.monotonic() - began < NOTICE_SECONDS
