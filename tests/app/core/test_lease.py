"""A lease outlives a full database, in which nobody else can take the job either, and no other trouble for long."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.core import jobs, lease
from app.core.db import Database
from app.core.errors import StorageFull, Unavailable
from app.core.records import Job


class TroubledDatabase(Database):
    """Lets nothing be written while it is in trouble."""

    trouble: Unavailable | None = None

    @contextmanager
    def begin(self) -> Iterator[Session]:
        if self.trouble is not None:
            raise self.trouble
        with super().begin() as session:
            yield session


@pytest.fixture
def db(tmp_path: Path) -> Iterator[TroubledDatabase]:
    database = TroubledDatabase(f"sqlite:///{tmp_path}/jobs.sqlite3")
    database.migrate()
    yield database
    database.close()


@pytest.mark.parametrize(
    ("trouble", "lost"),
    [(StorageFull("Full."), False), (Unavailable("Away.", code="database_unavailable"), True)],
    ids=["full", "away"],
)
def test_a_holder_gives_up_where_others_could_have_taken_the_job_and_only_there(
    trouble: Unavailable, lost: bool, db: TroubledDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"WATCH": 0.05, "RENEW": 0.1, "GIVE_UP": 0.8}.items():
        monkeypatch.setattr(lease, f"{name}_SECONDS", seconds)
    with db.begin() as session:
        job_id = jobs.submit(session, "train", {"name": "a"}).id
        job = session.get(Job, job_id)
        assert job is not None
        job.status = "running"
    held = lease.Lease(db, job_id, 1)
    db.trouble = trouble
    time.sleep(1.5)
    assert held.lost == lost
    held.close()


def test_a_holder_renews_as_soon_as_there_is_room_again(db: TroubledDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"WATCH": 0.05, "RENEW": 2.0}.items():
        monkeypatch.setattr(lease, f"{name}_SECONDS", seconds)
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "a"})
        job.status, job.lease_until = "running", 0.0
    db.trouble = StorageFull("Full.")
    held = lease.Lease(db, job.id, 1)
    time.sleep(2.5)
    db.trouble = None
    time.sleep(1.0)  # half of what it waits otherwise
    with db.read() as session:
        assert jobs.find(session, job.id).lease_until
    held.close()
