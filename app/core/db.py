"""The database: engine, sessions that commit or leave no trace, and migrations."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, func, select
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, OperationalError
from sqlalchemy.orm import Session

from app.core.errors import Damaged, InvalidRequest, SettingsInvalid, StorageFull, Unavailable

log = structlog.get_logger(__name__)

BUSY_TIMEOUT_SECONDS = 10  # a writer waits this long for another; our transactions take milliseconds
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One engine for one URL; SQLite is made durable and serialises its writers, PostgreSQL is left as it is."""

    def __init__(self, url: str) -> None:
        try:
            self.url: URL = make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            arguments = {"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False} if self.is_sqlite else {}
            self.engine = create_engine(self.url, connect_args=arguments, pool_pre_ping=not self.is_sqlite)
        except (ArgumentError, ImportError) as error:  # no URL, or a driver that is not installed
            message = f"GANVAS_DATABASE_URL cannot be used: {error}. Write it as postgresql+psycopg://user@host/name."
            raise SettingsInvalid(message, param="GANVAS_DATABASE_URL") from error
        if self.is_sqlite:
            event.listen(self.engine, "connect", _make_sqlite_durable)
            event.listen(self.engine, "begin", _begin)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """A session for writing: commits at the end, rolls back on any error, takes SQLite's write lock at once."""
        with self._session("IMMEDIATE") as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; takes no lock."""
        with self._session("DEFERRED") as session:
            yield session

    @contextmanager
    def _session(self, sqlite_begin: str) -> Iterator[Session]:
        try:
            engine = self.engine.execution_options(sqlite_begin=sqlite_begin)
            with Session(engine, expire_on_commit=False) as session:
                yield session
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StorageFull("The disk of the database is full; nothing of this was kept.") from error
            log.warning("database_failed", reason=str(error.orig))  # an answer must not tell where it is, and whose
            raise Unavailable("The database did not answer; the log has why.", code="database_unavailable") from error
        except (DataError, OverflowError, UnicodeEncodeError) as error:
            message = "This cannot be stored: it holds a NUL, half a character, or a number of more than 64 bits."
            raise InvalidRequest(message) from error
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", None) not in DAMAGED:
                raise
            raise Damaged(f"The database is damaged: {error.orig}. Restore a backup of it.") from error

    def migrate(self) -> None:
        """Bring the schema up to date; SettingsInvalid where the database cannot be opened or written."""
        if self.is_sqlite and self.url.database:
            _make_folder(Path(self.url.database).parent)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        try:
            with self.engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except OperationalError as error:
            shown = self.url.render_as_string(hide_password=True)
            raise SettingsInvalid(f"The database {shown} cannot be used: {error.orig}.") from error

    def schema(self) -> tuple[str | None, str]:
        """The revision of the schema that is there, None without one, and the newest that is known."""
        with self.read() as session:
            found = MigrationContext.configure(session.connection()).get_current_revision()
        return found, ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def clock(session: Session) -> float:
    """Seconds since 1970 by the database's clock: leases of many hosts are compared with this one only."""
    if session.get_bind().dialect.name == "sqlite":
        return time.time()  # one host by definition
    return float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0.0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The data folder {folder} cannot be made: {error.strerror}. Set GANVAS_DATA to one you may write."
        raise SettingsInvalid(message, param="GANVAS_DATA") from error


def _make_sqlite_durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin for us: see _begin
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # NORMAL may lose the last commits when the power goes
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
