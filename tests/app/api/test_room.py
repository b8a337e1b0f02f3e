"""Below the floor of free space nothing is taken that would be kept; what is there is drawn, read and deleted."""

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.core import space


@pytest.fixture(autouse=True)
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with a few bytes left."""
    monkeypatch.setattr(space, "free_bytes", lambda _folder: 4096)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/datasets",
        "/v1/training/jobs",
        "/v1/renders",
        "/v1/artworks",
        "/v1/models",
        "/v1/models/tiny/directions",
        "/v1/models/tiny/blend",
        "/v1/jobs/job_1/resume",
        "/v1/jobs/job_1/branch",
    ],
)
def test_what_would_be_kept_is_refused_with_the_figures(path: str, client: httpx.Client) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 507
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"]["code"] == "storage_full"
    assert "has 0 MiB free; below 512 MiB nothing new is begun" in answer.json()["detail"]


def test_a_picture_is_drawn_and_not_kept(app: Any, client: httpx.Client) -> None:
    app.publish("roomy")
    asked = {"prompt": "", "model": "roomy", "seed": 1}
    assert client.get("/v1/models/roomy/image", params={"seed": 1}).status_code == 200
    assert client.post("/v1/images/generations", json=asked).status_code == 200
    assert client.post("/v1/images/generations", json=asked | {"keep": True}).status_code == 507
    assert client.get("/v1/artworks", params={"model": "roomy"}).json()["data"] == []
    assert client.delete("/v1/models/roomy").status_code == 200


def test_an_upload_is_answered_before_its_body_comes(app: Any) -> None:
    where = urlsplit(app.url)
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: 1000000\r\n\r\n"
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 507")
