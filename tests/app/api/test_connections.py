"""Connections that do not keep up are cut off, and those that do are left alone."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from app.api import connections


@contextmanager
def connected(app: Any) -> Iterator[socket.socket]:
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the connection is closed."""
    pieces = []
    while piece := connection.recv(65_536):
        pieces.append(piece)
    return b"".join(pieces)


def problem(whole: bytes) -> tuple[int, str]:
    head, _, body = whole.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_a_head_that_is_not_whole_in_time_is_408(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    with connected(app) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        for letter in b"X-Slow: 1":  # one byte at a time changes nothing
            connection.sendall(bytes([letter]))
            time.sleep(0.02)
        assert problem(answer(connection)) == (408, "head_too_slow")
        assert time.monotonic() - began < 5


def test_a_second_head_on_a_connection_is_held_to_the_same(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    with connected(app) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /livez HTTP/1.1\r\nHo")
        assert problem(answer(connection)) == (408, "head_too_slow")


def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(
    app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with connected(app) as connection:
        assert answer(connection) == b""


def test_a_head_without_end_is_431(app: Any) -> None:
    with connected(app) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        try:
            for number in range(100_000):
                connection.sendall(f"X-{number}: {'a' * 100}\r\n".encode())
        except OSError:
            pass
        assert problem(answer(connection)) == (431, "head_too_large")


def test_what_is_no_http_is_400_in_the_shape_of_all_errors(app: Any) -> None:
    with connected(app) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert problem(answer(connection)) == (400, "http_invalid")


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/datasets", "/v1/recipes/verify"])
def test_a_body_that_hardly_comes_is_408(app: Any, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.5)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.1)
    kind = "application/json" if path.endswith("generations") else "multipart/form-data; boundary=x"
    with connected(app) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 10000\r\n\r\n"
        connection.sendall(head.encode() + (b'{"model": "' if "json" in kind else b"--x\r\n"))
        for _ in range(5):
            connection.sendall(b"a")
            time.sleep(0.05)
        head, _, body = answer(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "body_too_slow"


def test_a_body_that_comes_slowly_and_steadily_is_taken(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)
    with connected(app) as connection:
        body = b'{"model": "tiny", "response_format": "url", "seed": 1' + b" " * 3000 + b"}"
        head = "POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 300):  # over a second in all, at some 3 KiB a second
            connection.sendall(body[start : start + 300])
            time.sleep(0.1)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_take_its_answer_is_cut_off(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    stalled, pause = threading.Event(), connections.PromptConnection.pause_writing

    def note(connection: connections.PromptConnection) -> None:
        pause(connection)
        stalled.set()

    monkeypatch.setattr(connections.PromptConnection, "pause_writing", note)
    ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    size = len(httpx.get(f"{app.url}/v1/openapi.json").content)
    count = 64 * 1024**2 // size  # answers: far more than the system keeps for a client
    with connected(app) as connection:
        connection.sendall(ask * count)
        assert stalled.wait(20)
        time.sleep(1.5)
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 20):
                taken += len(piece)
    assert taken < count * size


def test_a_connection_serves_on_after_a_small_body_that_nobody_wanted(public: Any) -> None:
    with connected(public) as connection:
        for _ in range(3):
            connection.sendall(b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
