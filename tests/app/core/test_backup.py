"""A backup holds the studio of one moment, and what is restored from it is that studio."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.core import catalogue, jobs
from app.core.backup import backup, restore
from app.core.db import Database
from app.core.errors import Conflict, Damaged, InvalidRequest, NotFound, StorageFull, Unavailable
from app.core.records import Checkpoint, Job
from app.core.settings import Settings
from app.core.storage import Storage

Publish = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path, publish_tiny: Publish) -> Iterator[Settings]:
    """A studio with a model of two checkpoints."""
    made = Settings(data=tmp_path / "studio")
    db, storage = Database(made.database), Storage(made.data / "blobs")
    db.migrate()
    for seed in (1, 2):
        publish_tiny(db, storage, "moss", seed=seed, kimg=seed, sheet=bytes([seed]))
    yield made
    db.close()


def contents(settings: Settings) -> tuple[list[tuple[str, str | None]], dict[str, bytes]]:
    """The rows and blobs of a studio."""
    db, storage = Database(settings.database), Storage(settings.data / "blobs")
    with db.read() as session:
        rows = list(session.scalars(select(Checkpoint).order_by(Checkpoint.kimg)))
    db.close()
    names = [name for row in rows for name in (row.sha256, row.sheet_sha256) if name]
    return [(row.sha256, row.sheet_sha256) for row in rows], {name: storage.get(name) for name in names}


def test_what_is_restored_is_what_was_backed_up(settings: Settings, tmp_path: Path) -> None:
    made = backup(settings, tmp_path / "backup")
    assert (made.blobs, made.copied, made.lost) == (4, 4, {})
    elsewhere = Settings(data=tmp_path / "elsewhere")
    restored = restore(elsewhere, tmp_path / "backup")
    assert (restored.blobs, restored.bytes) == (made.blobs, made.bytes)
    assert contents(elsewhere) == contents(settings)


def test_a_second_backup_copies_only_what_is_new_and_forgets_what_is_gone(
    settings: Settings, tmp_path: Path, publish_tiny: Publish
) -> None:
    backup(settings, tmp_path / "backup")
    db, storage = Database(settings.database), Storage(settings.data / "blobs")
    with db.begin() as session:
        for name in catalogue.delete(session, "moss"):
            storage.delete(name)
    new = publish_tiny(db, storage, "fern", seed=3)
    db.close()
    made = backup(settings, tmp_path / "backup")
    assert (made.blobs, made.copied) == (1, 1)
    assert [blob.sha256 for blob in Storage(tmp_path / "backup" / "blobs").listing()] == [new]


def test_a_studio_that_is_written_to_is_backed_up_as_of_one_moment(settings: Settings, tmp_path: Path) -> None:
    db, ended = Database(settings.database), threading.Event()

    def write() -> None:
        while not ended.is_set():
            with db.begin() as session:  # two rows, never one
                jobs.submit(session, "render", {})
                jobs.submit(session, "render", {})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup(settings, tmp_path / "backup")
            elsewhere = Settings(data=tmp_path / f"elsewhere-{number}")
            restore(elsewhere, tmp_path / "backup")
            copy = Database(elsewhere.database)
            with copy.read() as session:
                assert session.query(Job).count() % 2 == 0
            copy.close()
    finally:
        ended.set()
        writer.join()
        db.close()


def test_what_the_studio_had_lost_is_told_and_the_rest_is_backed_up(settings: Settings, tmp_path: Path) -> None:
    rows, _ = contents(settings)
    storage = Storage(settings.data / "blobs")
    storage.path(rows[0][0]).write_bytes(b"damaged")
    storage.delete(str(rows[1][1]))
    made = backup(settings, tmp_path / "backup")
    assert made.lost == {rows[0][0]: "checkpoint of model moss", str(rows[1][1]): "sample sheet of model moss"}
    assert restore(Settings(data=tmp_path / "elsewhere"), tmp_path / "backup").lost == made.lost


@pytest.mark.parametrize("what", ["blob", "database", "manifest"])
def test_a_damaged_backup_is_refused_before_anything_is_written(settings: Settings, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "backup"
    backup(settings, folder)
    blob = next(Storage(folder / "blobs").listing()).sha256
    file = {
        "blob": folder / "blobs" / "sha256" / blob[:2] / blob,
        "database": folder / "ganvas.sqlite3",
        "manifest": folder / "manifest.json",
    }[what]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InvalidRequest if what == "manifest" else Damaged):
        restore(Settings(data=tmp_path / "elsewhere"), folder)
    assert not (tmp_path / "elsewhere").exists()


def test_a_backup_that_was_ended_half_way_is_none_and_is_made_whole_by_the_next(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "backup"
    backup(settings, folder)
    (folder / "manifest.json").unlink()  # it is written last
    with pytest.raises(InvalidRequest, match="no whole backup"):
        restore(Settings(data=tmp_path / "elsewhere"), folder)
    assert backup(settings, folder).copied == 0
    assert json.loads((folder / "manifest.json").read_text())["lost"] == {}


def test_nothing_is_restored_over_a_studio_or_backed_up_among_other_files(settings: Settings, tmp_path: Path) -> None:
    backup(settings, tmp_path / "backup")
    with pytest.raises(Conflict, match="GANVAS_DATA"):
        restore(settings, tmp_path / "backup")
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song").write_bytes(b"la")
    with pytest.raises(Conflict, match="something else"):
        backup(settings, tmp_path / "music")
    with pytest.raises(NotFound, match="no studio here"):
        backup(Settings(data=tmp_path / "nowhere"), tmp_path / "another")


@pytest.mark.parametrize("where", [".", "..", "blobs", "blobs/of/mine", "link"])
def test_a_studio_is_not_backed_up_over_itself(settings: Settings, tmp_path: Path, where: str) -> None:
    (settings.data / "link").symlink_to(settings.data / "blobs")
    before = contents(settings)
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(Conflict, match="where the studio itself is"):
        backup(settings, settings.data / where)
    assert sorted(tmp_path.rglob("*")) == files
    assert contents(settings) == before


def spoil_database(settings: Settings) -> None:
    (settings.data / "ganvas.sqlite3").write_bytes(b"no database" * 1000)
    (settings.data / "ganvas.sqlite3-wal").unlink()


def lose_database(settings: Settings) -> None:
    (settings.data / "ganvas.sqlite3").unlink()


@pytest.mark.parametrize("spoil", [spoil_database, lose_database])
def test_a_backup_that_fails_leaves_the_one_before_it_whole(
    settings: Settings, tmp_path: Path, spoil: Callable[[Settings], None]
) -> None:
    folder, before = tmp_path / "backup", contents(settings)
    backup(settings, folder)
    spoil(settings)
    with pytest.raises((Damaged, NotFound, Unavailable)):
        backup(settings, folder)
    elsewhere = Settings(data=tmp_path / "elsewhere")
    restore(elsewhere, folder)
    assert contents(elsewhere) == before


def test_a_backup_whose_disk_is_full_leaves_the_one_before_it_whole_and_is_made_by_the_next(
    settings: Settings, tmp_path: Path, publish_tiny: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = tmp_path / "backup", contents(settings)
    backup(settings, folder)
    db, storage = Database(settings.database), Storage(settings.data / "blobs")
    publish_tiny(db, storage, "fern", seed=3)
    db.close()

    def full(_storage: Storage, _data: object) -> str:
        raise StorageFull("Full.")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", full)
        with pytest.raises(StorageFull):
            backup(settings, folder)
        restored = Settings(data=tmp_path / "elsewhere")
    restore(restored, folder)
    assert contents(restored) == before
    assert backup(settings, folder).blobs == 5


def test_what_a_first_backup_or_a_restore_left_that_was_broken_off_is_in_nobodys_way(
    settings: Settings, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "backup", Settings(data=tmp_path / "elsewhere")
    for name in ("ganvas.part", "ganvas.part-journal", "ganvas.next", "ganvas.next-wal", "blobs/tmp/half"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")
    backup(settings, folder)
    assert sorted(place.name for place in folder.iterdir()) == ["blobs", "ganvas.sqlite3", "manifest.json"]
    elsewhere.data.mkdir()
    (elsewhere.data / "ganvas.part").write_bytes(b"half")
    restore(elsewhere, folder)
    assert contents(elsewhere) == contents(settings)
    assert not (elsewhere.data / "ganvas.part").exists()


def test_what_a_canceled_job_would_be_resumed_from_is_backed_up_and_may_be_gone(
    settings: Settings, tmp_path: Path
) -> None:
    db, storage = Database(settings.database), Storage(settings.data / "blobs")
    target = storage.put(b"a picture that was sent")
    with db.begin() as session:
        for sha256 in (target, "0" * 64):
            jobs.cancel(session, jobs.submit(session, "project", {"target": sha256}).id)
    db.close()
    elsewhere = Settings(data=tmp_path / "elsewhere")
    for copied in (5, 0):  # also by the second, which forgets what the first had alone
        made = backup(settings, tmp_path / "backup")
        assert (made.blobs, made.copied, made.lost) == (5, copied, {})
    restore(elsewhere, tmp_path / "backup")
    assert Storage(elsewhere.data / "blobs").get(target) == b"a picture that was sent"


def test_postgresql_has_its_own_tools(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, database_url="postgresql+psycopg://ganvas@db/ganvas")
    with pytest.raises(InvalidRequest, match="pg_dump"):
        backup(settings, tmp_path / "backup")
