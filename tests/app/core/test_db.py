"""The database is durable, its migrations and its records agree, and what cannot be opened is one clear error."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text

from app.core import catalogue, jobs
from app.core.db import MIGRATIONS, Database
from app.core.errors import Damaged, InvalidRequest, SettingsInvalid, StorageFull
from app.core.records import Checkpoint, Job, Model, Record


def test_the_migrations_make_exactly_the_tables_of_the_records(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    db.migrate()  # a second start changes nothing
    with db.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Record.metadata)
    db.close()
    assert differences == []


def test_models_of_the_first_tables_keep_their_checkpoints(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    migrate(db, command.upgrade, "0001")
    with db.begin() as session:
        session.execute(
            text(
                "INSERT INTO models (name, architecture, modality, resolution, z_dim, w_dim, num_ws, chosen, owned_by,"
                " created_at) VALUES ('old', 'dcgan', 'image', 32, 8, 8, 1, 0, 'you', '2026-01-01 00:00:00')"
            )
        )
        session.add(Checkpoint(model_name="old", sha256="a" * 64, kimg=1.0, bytes=10))
    db.migrate()
    with db.read() as session:
        model = session.get(Model, "old")
        assert model is not None
        assert (model.labels, model.vocabulary, model.encoder) == ([], [], None)
        assert [row.sha256 for row in catalogue.checkpoints(session, "old")] == ["a" * 64]
    migrate(db, command.downgrade, "0001")
    with db.read() as session:
        assert session.scalar(text("SELECT count(*) FROM checkpoints")) == 1
    db.close()


def test_a_training_from_before_goes_on_from_the_one_state_it_saved(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    migrate(db, command.upgrade, "0002")
    with db.begin() as session:
        session.execute(
            text(
                "INSERT INTO jobs (id, kind, status, request, progress, message, attempts, fruitless, epoch,"
                " cancel_requested, state_sha256, state_kimg, created_at) VALUES ('job_old', 'train', 'queued', '{}',"
                " 0.5, 'Waiting.', 1, 0, 2, 0, :state, 12.5, '2026-01-01 00:00:00')"
            ),
            {"state": "a" * 64},
        )
    db.migrate()
    with db.read() as session:
        job = session.get(Job, "job_old")
        assert job is not None
        assert (job.state_sha256, job.previous_state_sha256, job.state_kimg) == ("a" * 64, None, 12.5)
    db.close()


def migrate(db: Database, direction: Callable[[Config, str], None], revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with db.engine.begin() as connection:
        config.attributes["connection"] = connection
        direction(config, revision)


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


def test_a_full_disk_is_storage_full_and_leaves_what_there_was(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    with db.begin() as session:
        jobs.submit(session, "render", {})
        pages = session.scalar(text("PRAGMA page_count"))
    with pytest.raises(StorageFull), db.begin() as session:
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
        jobs.submit(session, "render", {"large": "x" * 1_000_000})
    with db.read() as session:
        assert session.query(Job).count() == 1
    db.close()


def test_a_damaged_file_is_told_of_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite3").write_bytes(b"SQLite format 3\0" + bytes(4080))
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    with pytest.raises((Damaged, SettingsInvalid)), db.begin() as session:
        session.execute(text("SELECT * FROM sqlite_schema"))
    db.close()


@pytest.mark.parametrize("name", ["\ud800", 2**64])
def test_what_no_database_can_hold_is_the_senders_fault(tmp_path: Path, name: object) -> None:
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    with pytest.raises(InvalidRequest, match="cannot be stored"), db.read() as session:
        session.get(Model, name)
    db.close()
