"""Backups of a studio: its database and every blob it names, in a folder; made while it runs, and restored whole."""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import make_url

from app.core import blobs
from app.core.db import Database
from app.core.errors import Conflict, Damaged, InvalidRequest, NotFound, StorageFull, Unavailable
from app.core.records import utc_now
from app.core.settings import Settings
from app.core.storage import FULL, Storage

MANIFEST: Final = "manifest.json"
DATABASE: Final = "ganvas.sqlite3"
NEXT: Final = "ganvas.next"  # the copy until all that it names is there: the backup before it stays whole
PART: Final = "ganvas.part"  # the copy in the making
OWN: Final = (MANIFEST, DATABASE, NEXT, PART, "blobs")  # how the names begin of what may lie in a backup
FORMAT: Final = 1
PAGES_AT_ONCE: Final = 4096  # of the database: those who write wait no longer than these take to be copied
ATTEMPTS: Final = 3  # a training that goes on deletes the states that it no longer needs
PATIENCE_SECONDS: Final = 30.0  # for a writer to let us read


@dataclass(frozen=True)
class Made:
    """What a backup or a restore did. `lost`: what each blob was that was missing or damaged in the studio."""

    blobs: int
    bytes: int  # of all blobs
    copied: int  # blobs that were not there yet
    lost: dict[str, str]


def backup(settings: Settings, folder: Path) -> Made:
    """Copy the studio into this folder, as of one moment; blobs that an earlier backup left there are not copied again.

    What an earlier backup needs is replaced when all of the new one is there. Without a manifest, or with one that does
    not fit, a folder is no backup. Raises InvalidRequest, Conflict, StorageFull, Unavailable.
    """
    if not settings.database.startswith("sqlite"):
        raise InvalidRequest(
            "`ganvas backup` copies SQLite. Back up PostgreSQL by pg_dump or its own archive, first, and the object "
            "store by its own versions or replication, after it: blobs are never written to."
        )
    _require_elsewhere(settings, folder)
    storage = Storage(settings.data / "blobs", settings.storage_url)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds what webhooks are signed with
        if not (folder / MANIFEST).exists() and not all(place.name.startswith(OWN) for place in folder.iterdir()):
            raise Conflict(f"{folder} holds something else; give an empty folder, or one of an earlier backup.")
        _clear(folder)
        into, copied = Storage(folder / "blobs"), 0
        for _attempt in range(ATTEMPTS):
            _copy_database(_file(settings), folder)
            named = _named(folder / NEXT)
            new, lost = _copy_blobs(storage, into, named.needed)
            copied += new
            if not lost:
                break
        new, gone = _copy_blobs(storage, into, dict.fromkeys(named.mentioned - named.needed.keys(), "mentioned"))
        kept = sorted((named.needed.keys() | named.mentioned) - lost.keys() - gone.keys())
        (folder / MANIFEST).unlink(missing_ok=True)
        _durable(folder / NEXT, folder / DATABASE)
        _write_manifest(folder, kept, lost)
        _forget_others(into, set(kept))
        return Made(len(kept), sum(into.path(sha256).stat().st_size for sha256 in kept), copied + new, lost)


def restore(settings: Settings, folder: Path) -> Made:
    """Make the studio of a backup, in a data folder that has none; everything is verified before anything is written.

    Raises InvalidRequest for a folder that is no backup, Damaged for one that is no longer what was written, Conflict
    where a studio is there, StorageFull, Unavailable.
    """
    if not settings.database.startswith("sqlite"):
        raise InvalidRequest("`ganvas restore` makes an SQLite studio; unset GANVAS_DATABASE_URL.")
    target, data = _file(settings), settings.data.absolute()
    part = target.with_suffix(".part")
    own = {data / "blobs", part}  # of a restore that was broken off
    if target.exists() or (data.exists() and any(place not in own for place in data.iterdir())):
        raise Conflict(f"The data folder {data} holds something; set GANVAS_DATA to an empty one.")
    manifest = _verified(folder)
    source, size = Storage(folder / "blobs"), 0
    with _writing(data):
        storage = Storage(data / "blobs", settings.storage_url)
        for sha256 in manifest["blobs"]:
            size += source.path(sha256).stat().st_size
            storage.put(source.path(sha256))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / DATABASE, part)  # last, and whole or not at all: without it there is no studio
        _durable(part, target)
    return Made(len(manifest["blobs"]), size, len(manifest["blobs"]), manifest["lost"])


def _file(settings: Settings) -> Path:
    return Path(make_url(settings.database).database or "").absolute()


def _require_elsewhere(settings: Settings, folder: Path) -> None:
    """Conflict where the backup would be written over the studio itself."""
    place, data = folder.resolve(), settings.data.resolve()
    over = any(studio.is_relative_to(place) for studio in (data, _file(settings).resolve()))
    if over or place.is_relative_to(data / "blobs") or (place / "blobs").resolve().is_relative_to(data / "blobs"):
        raise Conflict(f"{folder} is where the studio itself is; give another folder.")


def _clear(folder: Path) -> None:
    """Remove copies that were broken off, and their journals, which SQLite would take for those of the next."""
    for name in (NEXT, PART):
        for place in folder.glob(f"{name}*"):
            place.unlink()


def _copy_database(source: Path, folder: Path) -> None:
    """A copy of one moment, made while others read and write."""
    if not source.exists():
        raise NotFound(f"There is no studio here: {source} does not exist. Set GANVAS_DATA to its data folder.")
    part = folder / PART
    part.unlink(missing_ok=True)
    try:
        with (
            contextlib.closing(
                sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=PATIENCE_SECONDS)
            ) as running,
            contextlib.closing(sqlite3.connect(part)) as copy,
        ):
            running.execute("BEGIN")  # one moment: or a writer would have the copy begin again and again
            running.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            running.backup(copy, pages=PAGES_AT_ONCE)
            if (told := copy.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                raise Damaged(f"The database is damaged: {told}.")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StorageFull("The disk of the backup is full; make space and begin again.") from error
        raise Unavailable(f"The database could not be copied: {error}.", code="database_unavailable") from error
    _durable(part, folder / NEXT)


def _named(database: Path) -> blobs.Named:
    """The blobs that the copied database names."""
    db = Database(f"sqlite:///{database}")
    try:
        with db.read() as session:
            return blobs.named(session)
    finally:
        db.close()
        for name in (f"{database.name}-wal", f"{database.name}-shm"):
            database.with_name(name).unlink(missing_ok=True)


def _copy_blobs(storage: Storage, into: Storage, needed: dict[str, str]) -> tuple[int, dict[str, str]]:
    """How many had to be copied, and what those were that cannot be; one that is there is read, and copied again where
    it is damaged."""
    copied, lost = 0, {}
    for sha256, what in sorted(needed.items()):
        try:
            into.path(sha256)
        except (NotFound, Damaged):
            try:
                into.put(storage.path(sha256))
                copied += 1
            except (NotFound, Damaged):
                lost[sha256] = what
    return copied, lost


def _forget_others(into: Storage, kept: set[str]) -> None:
    """What only earlier backups in this folder had."""
    for stored in list(into.listing()):
        if stored.sha256 not in kept:
            into.delete(stored.sha256)


def _write_manifest(folder: Path, names: list[str], lost: dict[str, str]) -> None:
    content = {
        "format": FORMAT,
        "ganvas": version("ganvas"),
        "made_at": utc_now().isoformat(timespec="seconds"),
        "database_sha256": _sha256(folder / DATABASE),
        "blobs": names,  # each named by its sha256
        "lost": lost,
    }
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps(content, indent=1))
    _durable(part, folder / MANIFEST)


def _verified(folder: Path) -> dict[str, Any]:
    """The manifest of a backup of which every file is what was written."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise InvalidRequest(f"This backup has the format {manifest['format']}; this Ganvas reads {FORMAT}.")
        datetime.fromisoformat(manifest["made_at"])
        names, told = list(manifest["blobs"]), manifest["database_sha256"]
        dict(manifest["lost"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} is no whole backup: its {MANIFEST} is missing or cannot be read ({error})."
        raise InvalidRequest(message) from error
    try:
        if _sha256(folder / DATABASE) != told:
            raise Damaged(f"The backup's {DATABASE} no longer holds what was written.")
        storage = Storage(folder / "blobs")
        for sha256 in names:
            storage.verify(sha256)
    except (OSError, NotFound) as error:
        raise Damaged(f"The backup is not whole: {error}") from error
    return manifest


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _durable(part: Path, target: Path) -> None:
    """Give a file that is written its name, for good."""
    with part.open("rb+") as handle:
        os.fsync(handle.fileno())
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"The disk of {folder} is full; make space and begin again.") from error
        raise Unavailable(f"{folder} cannot be written: {error.strerror}.", code="storage_unavailable") from error
