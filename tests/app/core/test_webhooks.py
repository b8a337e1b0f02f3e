"""What is owed over webhooks is written with what it tells of, is told by one sender at a time, and survives."""

import base64
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.api.schemas.jobs import JobOut
from app.core import jobs, webhooks
from app.core.db import Database
from app.core.errors import InvalidRequest
from app.core.records import Job, Webhook, WebhookMessage, utc_now
from app.core.webhooks import Delivery


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
    database.migrate()
    yield database
    database.close()


def submit(db: Database, *, told: bool = True) -> str:
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "a"})
        if told:
            webhooks.attach(session, job.id, "https://studio.example/hooks", webhooks.new_secret())
        return job.id


def hold(db: Database, job_id: str) -> jobs.Claim:
    claim = jobs.claim(db, job_id, threading.Event())
    assert claim is not None
    return claim


def owed(db: Database) -> list[WebhookMessage]:
    with db.read() as session:
        return list(session.scalars(select(WebhookMessage).order_by(WebhookMessage.created_at)))


def types(db: Database) -> list[str]:
    return [message.type for message in owed(db)]


def take(db: Database, most: int = 8) -> list[Delivery]:
    with db.begin() as session:
        return webhooks.take(session, most)


def settle(db: Database, delivery: Delivery, reason: str | None = None, **arguments: Any) -> bool:
    with db.begin() as session:
        if reason is None:
            webhooks.told(session, delivery.id)
            return False
        return webhooks.failed(session, delivery.id, reason, **arguments)


def pass_time(db: Database, seconds: float) -> None:
    """As if everything had happened so much earlier."""
    with db.begin() as session:
        session.execute(
            update(WebhookMessage).values(
                next_at=WebhookMessage.next_at - seconds, taken_until=WebhookMessage.taken_until - seconds
            )
        )
        session.execute(update(Webhook).values(progress_at=Webhook.progress_at - seconds))


def test_a_training_is_told_of_from_its_start_to_its_end_as_get_shows_it(db: Database) -> None:
    job_id = submit(db)
    assert types(db) == []
    claim = hold(db, job_id)
    claim.report("snapshot", {"kimg": 1.0, "checkpoint": "ab" * 32}, progress=0.5)
    claim.finish("succeeded", message="Done.", result={"checkpoint": "ab" * 32})
    claim.leave()
    assert types(db) == ["job.started", "job.snapshot", "job.succeeded"]
    started, snapshot, succeeded = (message.payload for message in owed(db))
    assert set(started) == {"type", "timestamp", "data"}
    assert started["data"]["status"] == "running"
    assert snapshot["event"] == {"kimg": 1.0, "checkpoint": "ab" * 32}
    assert snapshot["data"]["progress"] == 0.5
    with db.read() as session:
        assert succeeded["data"] == JobOut.of(jobs.find(session, job_id), None).model_dump(mode="json")


@pytest.mark.parametrize("end", ["failed", "canceled"])
def test_other_ends_are_told_too(db: Database, end: Any) -> None:
    claim = hold(db, submit(db))
    claim.finish(end, message="No.", error={"code": "a", "message": "No."} if end == "failed" else None)
    claim.leave()
    assert types(db) == ["job.started", f"job.{end}"]
    assert owed(db)[1].payload["data"]["status"] == end


def test_a_job_that_is_canceled_before_it_starts_is_told_of(db: Database) -> None:
    job_id = submit(db)
    with db.begin() as session:
        jobs.cancel(session, job_id)
    assert types(db) == ["job.canceled"]


def test_a_job_without_a_webhook_owes_nothing(db: Database) -> None:
    claim = hold(db, submit(db, told=False))
    claim.report("tick", {"kimg": 1})
    claim.leave()
    assert types(db) == []


def test_a_change_that_does_not_happen_is_not_told(db: Database) -> None:
    job_id = submit(db)
    claim = hold(db, job_id)

    def break_off(*_: object) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        claim.finish("succeeded", message="Done.", change=break_off)
    claim.leave()
    assert types(db) == ["job.started"]


def test_a_newer_progress_takes_the_place_of_one_that_waits_under_an_id_of_its_own(db: Database) -> None:
    claim = hold(db, submit(db))
    ids = set()
    for kimg in range(5):
        claim.report("tick", {"kimg": kimg}, progress=kimg / 5)
        ids.add(owed(db)[-1].id)
    claim.leave()
    assert types(db) == ["job.started", "job.progress"]
    assert len(ids) == 5
    assert owed(db)[-1].payload["event"] == {"kimg": 4}


def test_progress_is_told_at_most_once_in_half_a_second_and_not_after_the_end(db: Database) -> None:
    claim = hold(db, submit(db))
    settle(db, take(db)[0])
    told, began = 0, time.monotonic()
    for kimg in range(40):  # of 0.1 seconds each, and what the work itself takes
        claim.report("tick", {"kimg": kimg})
        for delivery in take(db):
            assert delivery.type == "job.progress"
            settle(db, delivery)
            told += 1
        pass_time(db, 0.1)
    assert 7 <= told <= 1 + (4 + time.monotonic() - began) / webhooks.PROGRESS_GAP_SECONDS
    claim.report("tick", {"kimg": 41})
    claim.finish("succeeded", message="Done.")
    claim.leave()
    assert types(db) == ["job.started", "job.succeeded"]


def test_progress_that_was_being_told_and_failed_makes_way_for_newer_and_keeps_the_back_off(db: Database) -> None:
    claim = hold(db, submit(db))
    settle(db, take(db)[0])
    claim.report("tick", {"kimg": 1})
    (delivery,) = take(db)
    claim.report("tick", {"kimg": 2})
    assert len(owed(db)) == 3  # the one under way is left alone
    assert settle(db, delivery, "It answered 500.", waits=(5.0, 30.0))
    _, waiting = owed(db)
    assert waiting.payload["event"] == {"kimg": 2}
    assert waiting.attempts == 1
    assert take(db) == []
    pass_time(db, 5.1)
    assert [delivery.attempt for delivery in take(db)] == [2]
    claim.leave()


def test_a_message_has_one_sender_and_a_job_one_message_at_a_time(db: Database) -> None:
    first, second = submit(db), submit(db)
    for job_id in (first, second):
        claim = hold(db, job_id)
        claim.finish("succeeded", message="Done.")
        claim.leave()
    taken: list[Delivery] = []
    start = threading.Barrier(8)

    def sender() -> None:
        start.wait()
        taken.extend(take(db))

    threads = [threading.Thread(target=sender) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(delivery.job_id for delivery in taken) == sorted([first, second])
    assert {delivery.type for delivery in taken} == {"job.started"}
    for delivery in taken:
        settle(db, delivery)
    assert {delivery.type for delivery in take(db)} == {"job.succeeded"}


def test_a_message_whose_sender_died_is_taken_again_and_one_that_is_put_back_at_once(db: Database) -> None:
    claim = hold(db, submit(db))
    claim.leave()
    (first,) = take(db)
    assert take(db) == []
    pass_time(db, webhooks.HOLD_SECONDS + 1)
    (again,) = take(db)
    assert (again.id, again.attempt) == (first.id, 2)
    with db.begin() as session:
        webhooks.put_back(session, [again.id])
    (at_once,) = take(db)
    assert (at_once.id, at_once.attempt) == (first.id, 2)


def test_a_message_is_tried_again_with_growing_waits_and_then_given_up(db: Database) -> None:
    claim = hold(db, submit(db))
    claim.leave()
    for number, wait in enumerate(webhooks.RETRY_SECONDS, 1):
        (delivery,) = take(db)
        assert delivery.attempt == number
        assert settle(db, delivery, "It answered 500.")
        pass_time(db, wait - 1)
        assert take(db) == []
        pass_time(db, 1.1)
    (last,) = take(db)
    assert settle(db, last, "x" * 1000) is False
    pass_time(db, 1e6)
    assert take(db) == []
    assert (owed(db)[0].next_at, owed(db)[0].error) == (None, "x" * 500)


def test_what_was_settled_long_ago_is_forgotten_and_what_is_owed_is_not(db: Database) -> None:
    claim = hold(db, submit(db))
    claim.finish("succeeded", message="Done.")
    claim.leave()
    settle(db, take(db)[0])
    with db.begin() as session:
        session.execute(update(WebhookMessage).values(created_at=utc_now() - timedelta(days=8)))
        webhooks.sweep(session)
    assert types(db) == ["job.succeeded"]


def test_messages_go_with_their_job(db: Database) -> None:
    job_id = submit(db)
    hold(db, job_id).leave()
    (delivery,) = take(db)
    with db.begin() as session:
        session.delete(session.get_one(Job, job_id))
    assert owed(db) == []
    settle(db, delivery)
    assert settle(db, delivery, "It answered 500.") is False


def test_secrets_are_random_and_of_the_size_that_signing_libraries_take() -> None:
    assert webhooks.new_secret() != webhooks.new_secret()
    assert webhooks.check_secret(webhooks.new_secret())
    own = "whsec_" + base64.b64encode(b"x" * 24).decode()
    assert webhooks.check_secret(own) == own
    short, long = (base64.b64encode(b"x" * size).decode() for size in (23, 65))
    for bad in ("", "whsec_", "secret", f"whsec_{short}", f"whsec_{long}", own[6:], own + "!"):
        with pytest.raises(InvalidRequest, match="24 to 64 bytes"):
            webhooks.check_secret(bad)


def test_a_secret_is_not_written_where_a_delivery_is_shown() -> None:
    assert "whsec_" not in repr(Delivery("msg_1", "job_1", "job.started", 1, "https://a.example", "whsec_x", {}))


def test_jobs_whose_receivers_hang_hold_up_no_other(db: Database) -> None:
    hanging = [submit(db) for _ in range(3)]
    for job_id in hanging:
        hold(db, job_id).report("snapshot", {"kimg": 1.0})
    assert {delivery.job_id for delivery in take(db, 3)} == set(hanging)  # each owes another message besides
    late = submit(db)
    hold(db, late)
    assert [delivery.job_id for delivery in take(db, 3)] == [late]


def test_a_message_that_fails_after_it_was_put_back_is_tried_again_soon(db: Database) -> None:
    hold(db, submit(db))
    (delivery,) = take(db)
    with db.begin() as session:
        webhooks.put_back(session, [delivery.id])
    assert settle(db, delivery, "The studio stopped.", waits=(5.0, 36_000.0))
    (message,) = owed(db)
    assert message.next_at is not None
    assert message.next_at < time.time() + 10
