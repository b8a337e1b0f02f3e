"""Datasets as the real preparation leaves them."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from worker import tasks


def archive(count: int, side: int = 32, *, captions: bool = True) -> bytes:
    """A zip of noise, with captions, one picture twice and one file that is no picture."""
    random = np.random.RandomState(0)
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as files:
        for index in range(count):
            picture = io.BytesIO()
            Image.fromarray(random.randint(0, 256, (side, side, 3), dtype=np.uint8)).save(picture, "PNG")
            files.writestr(f"{index}.png", picture.getvalue())
            if captions:
                files.writestr(f"{index}.txt", f"noise number {index}")
        files.writestr("again.png", picture.getvalue())
        files.writestr("broken.png", b"\x89PNG\r\n\x1a\n and no more")
    return place.getvalue()


def prepare(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, app: Any, content: bytes, **fields: str) -> str:
    """Upload, and do the worker's part of it here; returns the dataset's id."""
    answer = client.post("/v1/datasets", data={"name": "noise", **fields}, files={"files": ("a.zip", content)})
    assert answer.status_code == 201, answer.text
    monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
    tasks.prepare(answer.json()["job"])
    dataset: str = answer.json()["id"]
    return dataset


@pytest.fixture(scope="session")
def noise(app: Any, client: httpx.Client) -> str:
    """A ready dataset of 40 pictures at 32 px."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return prepare(client, monkeypatch, app, archive(40), resolution="32")


@pytest.fixture(scope="session")
def silent(app: Any, client: httpx.Client) -> str:
    """The same without captions."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return prepare(client, monkeypatch, app, archive(40, captions=False), resolution="32")


@pytest.fixture
def prepared(app: Any, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Upload and prepare any archive."""

    def made(content: bytes, **fields: str) -> str:
        return prepare(client, monkeypatch, app, content, **fields)

    return made


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., bytes]:
    """Zips of noise."""
    return archive
