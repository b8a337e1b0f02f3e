"""An API is killed as soon as what was asked for is committed: who asks again gets the answer, and nothing is made
twice."""

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.core.records import ApiKey, Artwork, Dataset, IdempotentRequest, Job
from tests.chaos.conftest import Figures
from tests.chaos.parts import MODEL, SMALL_GRID, Parts, Replica
from tests.studio import draw_shapes

COMMIT_SECONDS = 30.0
Request = dict[str, Any]

# What makes something: how it is asked for, what it makes, and how the answer to asking again begins.
REQUESTS: dict[str, tuple[Callable[[], Request], type, int]] = {
    "render": (lambda: {"url": "/v1/renders", "json": SMALL_GRID}, Job, 202),
    "dataset": (
        lambda: {
            "url": "/v1/datasets",
            "data": {"name": "shapes"},
            "files": {"files": ("shapes.zip", draw_shapes(), "application/zip")},
        },
        Dataset,
        201,
    ),
    "pictures": (
        lambda: {"url": "/v1/images/generations", "json": {"model": MODEL, "n": 4, "seed": -1, "keep": True}},
        Artwork,
        200,
    ),
    "key": (lambda: {"url": "/v1/keys", "json": {"name": "sketch", "scopes": ["generate"]}}, ApiKey, 409),
}


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "data", [], 2)
    yield made
    made.close()


def test_who_asks_again_after_a_kill_gets_the_answer_to_what_was_made_once(
    parts: Parts, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    kinds = itertools.cycle(REQUESTS)
    kills, lost = rounds(4, 40), 0
    for number in range(kills):
        make, record, status = REQUESTS[next(kinds)]
        request, key = make(), uuid.uuid4().hex
        killed, other = parts.replicas[number % 2], parts.replicas[1 - number % 2]
        before = count(parts, record)
        lost += kill_when_committed(parts, killed.wait(), request, key)
        made = count(parts, record)
        assert made > before
        first, second = (ask(other.wait(), request, key) for _ in range(2))
        assert (first.status_code, first.headers["idempotency-replayed"]) == (status, "true"), first.text
        assert second.content == first.content
        assert count(parts, record) == made
        killed.restart()
    assert lost > 0, "every answer was faster than the kill"
    figures.add(
        f"idempotency: {kills} kills of an API right behind a commit, {lost} of them before the answer; "
        f"asked again, {kills} answers to what was committed, and nothing made twice"
    )


def kill_when_committed(parts: Parts, replica: Replica, request: Request, key: str) -> bool:
    """Whether the answer was lost."""
    answers: list[httpx.Response] = []

    def send() -> None:
        with contextlib.suppress(httpx.TransportError):
            answers.append(ask(replica, request, key))

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + COMMIT_SECONDS
    while not answered(parts, key):
        assert time.monotonic() < deadline, answers and answers[0].text
    replica.kill()
    thread.join()
    return not answers


def answered(parts: Parts, key: str) -> bool:
    """Whether the answer to a request is committed."""
    query = select(IdempotentRequest.status).where(IdempotentRequest.key == key)
    with parts.db.read() as session:
        return session.scalar(query) is not None


def ask(replica: Replica, request: Request, key: str) -> httpx.Response:
    """The answer of another process."""
    with httpx.Client(base_url=replica.url, timeout=60, headers={"idempotency-key": key}) as client:
        return client.post(**request)


def count(parts: Parts, record: type) -> int:
    with parts.db.read() as session:
        return session.scalar(select(func.count()).select_from(record)) or 0
