"""A claim is held by one attempt, and its answer stands or falls with what it tells of."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.core import idempotency, jobs
from app.core.db import Database
from app.core.errors import Damaged, InvalidRequest, Underway
from app.core.idempotency import Answer, Asked, Claim
from app.core.records import IdempotentRequest, Job, utc_now
from app.core.storage import Storage

ASKED = Asked("loopback", "key", "POST /v1/renders", "f" * 64)
GUESSED = replace(ASKED, key=idempotency.guessed_key("f" * 64))
ANSWER = Answer(202, {"location": "/v1/jobs/job_1"}, b"{}")
LARGE = replace(ANSWER, body=bytes(idempotency.BODY_IN_ROW_BYTES + 1))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


def begin(db: Database, storage: Storage, asked: Asked = ASKED) -> Claim | Answer:
    with db.begin() as session:
        return idempotency.begin(session, storage, asked)


def claimed(db: Database, storage: Storage, asked: Asked = ASKED) -> Claim:
    claim = begin(db, storage, asked)
    assert isinstance(claim, Claim)
    return claim


def keep(db: Database, storage: Storage, claim: Claim, answer: Answer = ANSWER) -> None:
    with db.begin() as session:
        idempotency.keep(session, storage, claim, answer)


def change(db: Database, **values: object) -> None:
    with db.begin() as session:
        for row in session.query(IdempotentRequest):
            for name, value in values.items():
                setattr(row, name, value)


def rows(db: Database) -> int:
    with db.read() as session:
        return session.query(IdempotentRequest).count()


def blobs(storage: Storage) -> list[Path]:
    return [path for path in storage.root.glob("sha256/*/*") if path.is_file()]


@pytest.mark.parametrize("answer", [ANSWER, LARGE])
def test_an_answer_is_told_again_whatever_its_size(db: Database, storage: Storage, answer: Answer) -> None:
    keep(db, storage, claimed(db, storage), answer)
    assert begin(db, storage) == answer
    assert len(blobs(storage)) == (answer is LARGE)


def test_one_attempt_holds_a_key_until_it_falls_silent(db: Database, storage: Storage) -> None:
    first = claimed(db, storage)
    with pytest.raises(Underway) as busy:
        begin(db, storage)
    assert busy.value.error_code == "idempotency_in_flight"
    change(db, locked_until=time.time() - 1)
    with db.begin() as session:
        idempotency.renew(session, first)
    with pytest.raises(Underway):
        begin(db, storage)
    change(db, locked_until=time.time() - 1)
    assert claimed(db, storage) != first


def test_what_an_attempt_makes_that_lost_its_key_is_not_made(db: Database, storage: Storage) -> None:
    first = claimed(db, storage)
    change(db, locked_until=time.time() - 1)
    second = claimed(db, storage)
    with pytest.raises(Underway), db.begin() as session:
        jobs.submit(session, "render", {})
        idempotency.keep(session, storage, first, ANSWER)
    with db.read() as session:
        assert session.query(Job).count() == 0
    with db.begin() as session:
        idempotency.release(session, first)  # nor does it take the key from the other
    keep(db, storage, second)
    assert begin(db, storage) == ANSWER


def test_a_key_that_was_given_back_is_free_and_one_that_was_answered_is_not(db: Database, storage: Storage) -> None:
    first = claimed(db, storage)
    with db.begin() as session:
        idempotency.release(session, first)
    second = claimed(db, storage)
    keep(db, storage, second)
    with db.begin() as session:
        idempotency.release(session, second)
    assert begin(db, storage) == ANSWER


def test_another_body_or_another_route_is_refused_also_while_the_first_is_in_the_making(
    db: Database, storage: Storage
) -> None:
    claim = claimed(db, storage)
    refused_both(db, storage)
    keep(db, storage, claim)
    refused_both(db, storage)


def refused_both(db: Database, storage: Storage) -> None:
    for other in (replace(ASKED, fingerprint="e" * 64), replace(ASKED, route="POST /v1/datasets")):
        with pytest.raises(InvalidRequest, match=r"POST /v1/renders|another body") as refused:
            begin(db, storage, other)
        assert refused.value.error_code == "idempotency_mismatch"


def test_owners_do_not_see_each_others_keys(db: Database, storage: Storage) -> None:
    keep(db, storage, claimed(db, storage))
    assert isinstance(begin(db, storage, replace(ASKED, owner="key_1", fingerprint="e" * 64)), Claim)


def test_a_day_later_a_key_is_new_and_its_blob_gone(db: Database, storage: Storage) -> None:
    keep(db, storage, claimed(db, storage), LARGE)
    change(db, created_at=utc_now() - idempotency.KEPT + timedelta(minutes=1))
    assert begin(db, storage) == LARGE
    change(db, created_at=utc_now() - idempotency.KEPT - timedelta(minutes=1))
    assert isinstance(begin(db, storage, replace(ASKED, fingerprint="e" * 64)), Claim)
    assert blobs(storage) == []


def test_a_guessed_key_is_taken_by_every_first_try_and_told_again_to_those_behind_it(
    db: Database, storage: Storage
) -> None:
    anew = replace(GUESSED, anew=True)
    keep(db, storage, claimed(db, storage, anew), LARGE)
    assert begin(db, storage, GUESSED) == LARGE
    second = claimed(db, storage, anew)
    assert blobs(storage) == []
    with pytest.raises(Underway):
        begin(db, storage, GUESSED)
    keep(db, storage, second)
    change(db, created_at=utc_now() - idempotency.GUESSED - timedelta(seconds=1))
    assert isinstance(begin(db, storage, GUESSED), Claim)


def test_a_sweep_forgets_what_is_old_and_not_what_is_in_the_making(db: Database, storage: Storage) -> None:
    for asked in (ASKED, GUESSED):
        keep(db, storage, claimed(db, storage, asked), LARGE)
    assert idempotency.sweep(db, storage) == 0
    change(db, created_at=utc_now() - idempotency.GUESSED - timedelta(seconds=1))
    assert (idempotency.sweep(db, storage), rows(db), len(blobs(storage))) == (1, 1, 1)
    change(db, created_at=utc_now() - idempotency.KEPT - timedelta(seconds=1), locked_until=time.time() + 10)
    assert idempotency.sweep(db, storage) == 0
    change(db, locked_until=None)
    assert (idempotency.sweep(db, storage), rows(db), blobs(storage)) == (1, 0, [])


def test_a_sweep_of_more_than_one_transaction_ends(
    db: Database, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "SWEPT_AT_ONCE", 2)
    count = 5
    with db.begin() as session:
        for number in range(count):
            idempotency.begin(session, storage, replace(ASKED, key=str(number)))
    change(db, created_at=utc_now() - idempotency.KEPT - timedelta(seconds=1), locked_until=time.time() - 1)
    assert idempotency.sweep(db, storage) == count


def test_an_answers_blob_is_no_artworks(db: Database, storage: Storage) -> None:
    kept = storage.put(LARGE.body)
    keep(db, storage, claimed(db, storage), LARGE)
    change(db, created_at=utc_now() - idempotency.KEPT - timedelta(seconds=1))
    idempotency.sweep(db, storage)
    assert storage.get(kept) == LARGE.body


def test_an_answer_whose_blob_is_gone_is_no_reason_to_make_it_twice(db: Database, storage: Storage) -> None:
    keep(db, storage, claimed(db, storage), LARGE)
    for blob in blobs(storage):
        blob.unlink()
    with pytest.raises(Damaged, match="another key"):
        begin(db, storage)
