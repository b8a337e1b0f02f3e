"""What every request passes through: its id, the door, and the limit on its body."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.api.middleware import JSON_BODY_MAX_BYTES


def test_a_sane_request_id_of_the_client_is_kept_and_any_other_replaced(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"x-request-id": "my-request-1"}).headers["x-request-id"] == "my-request-1"
    assert client.get("/livez", headers={"x-request-id": 'a"b\\n'}).headers["x-request-id"].startswith("req_")
    first, second = (client.get("/livez").headers["x-request-id"] for _ in range(2))
    assert first != second


def test_a_body_that_declares_too_much_is_refused_unread(app: Any) -> None:
    host = app.url.removeprefix("http://")
    with socket.create_connection(host.split(":")) as connection:
        head = (
            f"POST /v1/images/generations HTTP/1.1\r\nHost: {host}\r\nContent-Length: {JSON_BODY_MAX_BYTES + 1}\r\n\r\n"
        )
        connection.sendall(head.encode())  # and no body at all
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


def test_a_body_of_unknown_length_is_refused_once_too_much_has_come(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(JSON_BODY_MAX_BYTES // 65_536 + 1):
            yield b" " * 65_536

    response = client.post("/v1/images/generations", content=pieces(), headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["error"]["code"] == "too_large"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example"])
def test_another_host_name_is_refused_on_loopback(client: httpx.Client, host: str) -> None:
    response = client.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "not_allowed"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_every_name_of_this_machine_is_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_pages_of_other_sites_may_not_ask(client: httpx.Client, origin: str) -> None:
    response = client.post("/v1/images/generations", json={}, headers={"origin": origin})
    assert response.status_code == 403


def test_our_own_pages_may_ask(client: httpx.Client) -> None:
    answer = client.post("/v1/images/generations", json={}, headers={"origin": "http://localhost:3000"})
    assert answer.status_code == 200


def opened(app: Any, **options: Any) -> bool:
    """Whether a websocket opens and gives a frame."""
    url = f"{app.url.replace('http', 'ws', 1)}/v1/models/tiny/live"
    try:
        with connect(url, proxy=None, **options) as connection:
            connection.send("{}")
            return isinstance(connection.recv(30), bytes)
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
        assert refused.response.headers["content-type"] == "application/problem+json"
        assert refused.response.headers["x-request-id"]
        return False


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_pages_of_other_sites_may_open_no_websocket(app: Any, origin: str) -> None:
    assert not opened(app, origin=origin)


@pytest.mark.parametrize("origin", [None, "http://localhost:8001", "http://127.0.0.1:8001"])
def test_our_own_pages_may_open_one(app: Any, origin: str | None) -> None:
    assert opened(app, origin=origin)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example"])
def test_a_name_that_was_bound_anew_to_this_machine_opens_no_websocket(app: Any, host: str) -> None:
    """A page of evil.example whose name now means 127.0.0.1: its Host and its Origin agree, and are not ours."""
    port = int(app.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"GET /v1/models/tiny/live HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")
