"""The sender tells real receivers what they are owed, signed, again and again until it is heard, and nobody else."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import httpcore
import pytest
from openai import OpenAI
from sqlalchemy import select
from standardwebhooks import Webhook

from app.core import webhooks
from app.core.db import Database
from app.core.records import WebhookMessage
from app.webhooks import delivery
from app.webhooks.sender import Sender

LOCAL = ("127.0.0.1",)
Start = Callable[[str], Any]


def owed(db: Database) -> list[WebhookMessage]:
    with db.read() as session:
        return list(session.scalars(select(WebhookMessage).order_by(WebhookMessage.created_at)))


def send(
    db: Database,
    until: Callable[[], bool],
    *,
    listed: Sequence[str] = LOCAL,
    meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None,
    **arguments: Any,
) -> list[str]:
    """Run a sender until something is so; how its attempts ended."""
    outcomes: list[str] = []

    async def run() -> None:
        sender = asyncio.create_task(Sender(db, listed, outcomes.append, **arguments).run())
        other = asyncio.create_task(meanwhile()) if meanwhile else None
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        sender.cancel()
        await asyncio.gather(sender, *([other] if other else []), return_exceptions=True)

    asyncio.run(run())
    return outcomes


def settled(db: Database) -> Callable[[], bool]:
    return lambda: all(message.next_at is None for message in owed(db))


def test_a_message_passes_the_verifiers_of_standard_webhooks_and_of_openai(
    db: Database, receiver: Any, started: Start, secret: str
) -> None:
    claim = started(receiver.url)
    assert send(db, settled(db)) == ["told"]
    headers, body, _ = receiver.heard[0]
    message = Webhook(secret).verify(body, headers)
    assert message["type"] == "job.started"
    assert message["data"]["id"] == claim.job_id
    event = OpenAI(api_key="any", webhook_secret=secret).webhooks.unwrap(body.decode(), headers)
    assert event.type == "job.started"
    assert headers["webhook-id"] == owed(db)[0].id
    assert headers["host"] == receiver.url.split("/")[2]
    assert headers["content-type"] == "application/json"
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(webhooks.new_secret()).verify(body, headers)


def test_a_message_is_tried_again_under_the_same_id_until_it_is_accepted(
    db: Database, receiver: Any, started: Start
) -> None:
    receiver.statuses = [500, 404, 200]
    started(receiver.url)
    assert send(db, settled(db), waits=(0.1, 0.6, 60)) == ["failed", "failed", "told"]
    first, second, third = receiver.heard
    assert len({headers["webhook-id"] for headers, _, _ in receiver.heard}) == 1
    assert second[2] - first[2] >= 0.1
    assert third[2] - second[2] >= 0.6
    assert owed(db)[0].error is None


def test_a_message_nobody_accepts_is_given_up_and_the_next_ones_are_told(
    db: Database, receiver: Any, started: Start
) -> None:
    receiver.statuses = [500, 503, 500]
    claim = started(receiver.url)
    assert send(db, settled(db), waits=(0, 0)) == ["failed", "failed", "given_up"]
    claim.finish("succeeded", message="Done.")
    assert send(db, settled(db)) == ["told"]
    assert [message.error for message in owed(db)] == ["The receiver answered 500.", None]


def test_a_receiver_that_is_down_is_a_failed_attempt(db: Database, receiver: Any, started: Start) -> None:
    started("http://127.0.0.1:1/")
    assert send(db, settled(db), waits=()) == ["given_up"]
    assert "could not be reached" in (owed(db)[0].error or "")


def test_a_redirect_is_not_followed(db: Database, receiver: Any, started: Start) -> None:
    receiver.statuses = [302, 307, 308]
    receiver.headers = {"location": receiver.url}
    started(receiver.url)
    assert send(db, settled(db), waits=(0, 0)) == ["failed", "failed", "given_up"]
    assert len(receiver.heard) == 3
    assert owed(db)[0].error == "The receiver answered 308; redirects are not followed."


def test_of_many_ticks_progress_arrives_at_most_every_half_second_and_the_newest_last(
    db: Database, receiver: Any, started: Start, secret: str
) -> None:
    claim = started(receiver.url)

    async def train() -> None:
        for kimg in range(60):
            await asyncio.to_thread(claim.report, "tick", {"kimg": kimg})
            await asyncio.sleep(0.01)

    def all_told() -> bool:
        return b'"kimg":59' in (receiver.heard[-1][1] if receiver.heard else b"") and not owed(db)[1:]

    send(db, all_told, meanwhile=train)
    moments = [when for headers, body, when in receiver.heard if b"job.progress" in body]
    assert 2 <= len(moments) <= 2 + (moments[-1] - moments[0]) / 0.5
    assert min(later - sooner for sooner, later in itertools.pairwise(moments)) >= 0.5


def test_what_a_stopped_sender_had_in_hand_is_told_by_the_next_under_the_same_id(
    db: Database, receiver: Any, started: Start
) -> None:
    receiver.busy.set()
    started(receiver.url)
    assert send(db, lambda: len(receiver.heard) == 1) == []
    receiver.busy.clear()
    assert send(db, settled(db)) == ["told"]
    assert len({headers["webhook-id"] for headers, _, _ in receiver.heard}) == 1


def test_a_receiver_that_keeps_silent_holds_up_nobody_else(
    db: Database, receiver: Any, raw_receiver: Any, started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(delivery.TIMEOUTS, "read", 1.0)
    started(raw_receiver(b"", b"", 0))
    started(receiver.url)
    assert send(db, settled(db), waits=()) == ["told", "given_up"]
    assert "ReadTimeout" in (owed(db)[0].error or "")


@pytest.mark.parametrize(
    ("head", "piece", "pause_seconds"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", b"x" * 65_536, 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.05),
    ],
    ids=["1 GiB", "endless", "endless and slow"],
)
def test_of_a_long_answer_little_is_read_and_its_status_counts(
    db: Database,
    raw_receiver: Any,
    started: Start,
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    piece: bytes,
    pause_seconds: float,
) -> None:
    monkeypatch.setattr(delivery, "REST_SECONDS", 0.3)
    read = count_bytes(monkeypatch)
    started(raw_receiver(head, piece, pause_seconds))
    assert send(db, settled(db)) == ["told"]
    assert sum(read) < 4 * delivery.LARGEST_ANSWER_BYTES


def test_an_answer_whose_head_never_ends_is_cut_off(
    db: Database, raw_receiver: Any, started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = count_bytes(monkeypatch)
    started(raw_receiver(b"HTTP/1.1 200 OK\r\n", b"x-a: " + b"b" * 1000 + b"\r\n", 0))
    assert send(db, settled(db), waits=()) == ["given_up"]
    assert sum(read) < 4 * delivery.LARGEST_ANSWER_BYTES


def count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much comes over the network from now on."""
    stream = type(asyncio.run(_a_stream()))
    read: list[int] = []
    original = stream.read

    async def counted(self: Any, *arguments: Any, **named: Any) -> bytes:
        data: bytes = await original(self, *arguments, **named)
        read.append(len(data))
        return data

    monkeypatch.setattr(stream, "read", counted)
    return read


async def _a_stream() -> httpcore.AsyncNetworkStream:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        stream = await httpcore.AnyIOBackend().connect_tcp(*server.sockets[0].getsockname()[:2])
        await stream.aclose()
        return stream
