"""The whole examination, in the order in which one thing rests on another."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

from app.core.db import Database
from app.core.doctor import blobs, database, machine
from app.core.doctor.finding import Finding, wrong
from app.core.errors import GanvasError
from app.core.settings import Settings
from app.core.storage import Storage


def examine(settings: Settings, *, repair: bool) -> Iterator[Finding]:
    """Look at everything, and with `repair` put right what can be; findings come as they are made. A studio may run
    meanwhile. It ends early where nothing further can be looked at."""
    missing = _missing(settings)
    if missing is not None:
        yield missing
        return
    running = machine.is_running(settings)
    storage = Storage(settings.data / "blobs", settings.storage_url)
    yield from machine.versions()
    yield from machine.folders(settings, storage)
    yield from machine.room(settings)
    yield from machine.redis(settings, running=running)
    db = Database(settings.database)
    try:
        yield from _kept(settings, db, storage, running=running, repair=repair)
    except GanvasError as error:
        yield wrong("database", f"The examination ended here: {error.message}")
    finally:
        db.close()


def _missing(settings: Settings) -> Finding | None:
    """Where there is no studio, that is all there is to say."""
    url = make_url(settings.database)
    file = Path(url.database or "").absolute()
    if url.get_backend_name() == "sqlite" and not file.exists():
        return wrong("database", f"There is no studio here: {file} does not exist. Set GANVAS_DATA to its data folder.")
    return None


def _kept(settings: Settings, db: Database, storage: Storage, *, running: bool, repair: bool) -> Iterator[Finding]:
    """The database and what it names."""
    yield from database.pages(db)
    stands = True
    for finding in database.schema(db, repair=repair):
        stands = finding.state != "wrong"
        yield finding
    if not stands:
        return
    yield from machine.clocks(db)
    yield from database.times(db)
    yield from database.jobs(settings, db, running=running, repair=repair)
    yield from blobs.needed(settings, db, storage, repair=repair)
    yield from blobs.orphans(db, storage, repair=repair)
    yield from blobs.torn(storage, repair=repair)
