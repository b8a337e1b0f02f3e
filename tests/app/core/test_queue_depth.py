"""So many jobs may wait for one caller, counted in the transaction that adds one."""

import contextvars
from pathlib import Path

import pytest

from app.core import callers, jobs
from app.core.callers import Caller
from app.core.db import Database
from app.core.errors import Busy
from app.core.records import Job


def submitted(db: Database, caller: Caller) -> str:
    def submit() -> str:
        callers.enter(caller)
        with db.begin() as session:
            return jobs.submit(session, "render", {}).id

    return contextvars.copy_context().run(submit)


def test_each_caller_has_room_of_its_own_and_the_studio_always(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    key, loopback = Caller(key_id="key_1", max_queued_jobs=2), Caller(max_queued_jobs=2)
    first = submitted(db, key)
    submitted(db, key)
    with pytest.raises(Busy, match="2 of your jobs wait") as refused:
        submitted(db, key)
    assert (refused.value.error_code, refused.value.retry_after) == ("queue_full", 60.0)
    for _ in range(2):
        submitted(db, loopback)
    with pytest.raises(Busy):
        submitted(db, loopback)
    assert submitted(db, callers.STUDIO)
    with db.begin() as session:
        assert session.get_one(Job, first).key_id == "key_1"
        jobs.cancel(session, first)
    assert submitted(db, key)
    db.close()


def test_a_job_that_is_resumed_waits_among_those_of_whose_it_is(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    key = Caller(key_id="key_1", max_queued_jobs=1)
    first = submitted(db, key)
    with db.begin() as session:
        jobs.cancel(session, first)
    submitted(db, key)

    def resume() -> None:
        callers.enter(key)
        with db.begin() as session:
            jobs.resume(session, first)

    with pytest.raises(Busy, match="1 of your jobs wait"):
        contextvars.copy_context().run(resume)
    db.close()
