"""The database is durable, its migrations and its records agree, and what cannot be opened is one clear error."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from app.core.db import Database
from app.core.errors import SettingsInvalid
from app.core.records import Job, Record


def test_the_migrations_make_exactly_the_tables_of_the_records(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    db.migrate()  # a second start changes nothing
    with db.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Record.metadata)
    db.close()
    assert differences == []


def test_sqlite_commits_are_durable_and_foreign_keys_hold(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    with db.read() as session:
        pragmas = {
            name: session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    db.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_writers_take_turns_instead_of_losing_updates(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    with db.begin() as session:
        session.add(Job(id="job_1", kind="train", request={}))

    def add_ten() -> None:
        for _ in range(10):
            with db.begin() as session:
                job = session.get(Job, "job_1")
                assert job is not None
                job.attempts += 1

    threads = [threading.Thread(target=add_ten) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.read() as session:
        job = session.get(Job, "job_1")
    db.close()
    assert job is not None
    assert job.attempts == 40


def test_a_folder_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    db = Database(f"sqlite:///{tmp_path}/file/a.sqlite3")
    with pytest.raises(SettingsInvalid, match="GANVAS_DATA"):
        db.migrate()
