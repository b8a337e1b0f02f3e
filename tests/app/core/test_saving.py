"""What an attempt saves is what the next one starts from; what nobody needs any longer is named for deletion."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import jobs, saving
from app.core.db import Database
from app.core.records import Job


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
    database.migrate()
    yield database
    database.close()


def hold(db: Database) -> jobs.Claim:
    with db.begin() as session:
        job_id = jobs.submit(session, "train", {"name": "a"}).id
    claim = jobs.claim(db, job_id, threading.Event())
    assert claim is not None
    return claim


def fetch(db: Database, job_id: str) -> Job:
    with db.read() as session:
        return jobs.find(session, job_id)


def test_the_state_before_the_newest_is_kept_and_the_one_before_that_is_named_for_deletion(db: Database) -> None:
    claim = hold(db)
    superseded: list[str | None] = []
    for name in ("a", "a", "b", "c", "d"):
        claim.publish(lambda _session, job, name=name: superseded.append(saving.keep_state(job, name * 64, 1.5)))
    claim.release()
    assert superseded == [None, None, None, "a" * 64, "b" * 64]
    job = fetch(db, claim.job_id)
    assert (job.state_sha256, job.previous_state_sha256, job.state_kimg) == ("d" * 64, "c" * 64, 1.5)
    assert saving.states(job) == ["d" * 64, "c" * 64]


def test_a_part_that_is_said_twice_is_kept_once(db: Database) -> None:
    claim = hold(db)
    for name in ("a", "a", "b", "a"):
        claim.publish(lambda _session, job, name=name: saving.keep_part(job, name * 64))
    claim.release()
    assert fetch(db, claim.job_id).parts == ["a" * 64, "b" * 64, "a" * 64]


def test_a_state_is_in_use_by_the_job_it_is_of_and_by_branches_that_may_start_from_it(db: Database) -> None:
    claim = hold(db)
    claim.publish(lambda _session, job: saving.keep_state(job, "a" * 64, 1.0))
    with db.begin() as session:
        branch = jobs.submit(session, "train", {"name": "fern", "branch": "b" * 64}).id
        assert [saving.state_in_use(session, name * 64) for name in "abc"] == [True, True, False]
    with db.begin() as session:
        jobs.cancel(session, branch)
        assert saving.state_in_use(session, "b" * 64)  # it may be resumed
        jobs.find(session, branch).status = "succeeded"
        session.flush()
        assert not saving.state_in_use(session, "b" * 64)
    claim.release()
