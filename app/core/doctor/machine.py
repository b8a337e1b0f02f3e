"""What a studio stands on: its folders, the room in them, the packages, Redis, and the clocks."""

import fcntl
import os
import re
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from app.core.db import Database, clock
from app.core.doctor.finding import Finding, note, well, wrong
from app.core.errors import GanvasError
from app.core.queue import connect
from app.core.settings import MIB, Settings
from app.core.space import free_bytes, places
from app.core.storage import Storage

PINNED: Final = re.compile(r"([A-Za-z0-9._-]+)(?:\[.*?\])?==([^;\s]+)(?!.*extra)")
CLOCK_SECONDS: Final = 2.0  # that clocks may differ by; leases last 30
LOCK: Final = "ganvas.lock"


def is_running(settings: Settings) -> bool:
    """Whether a `ganvas up` has the data folder."""
    try:
        with (settings.data / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def folders(settings: Settings, storage: Storage) -> Iterator[Finding]:
    """Whether all of the data folder can be read and written, and storage takes a blob."""
    locked = [place for place in _outer(settings.data.absolute()) if not os.access(place, os.R_OK | os.W_OK)]
    if locked:
        shown = ", ".join(map(str, locked[:3]))
        yield wrong("permissions", f"{len(locked)} places cannot be read or written by this user, such as {shown}.")
    else:
        yield well("permissions", f"{settings.data.absolute()} can be read and written.")
    try:
        storage.check()
        yield well("storage", "It takes a blob and gives it up again.")
    except (GanvasError, OSError) as error:
        yield wrong("storage", f"It takes no blob: {error}")


def _outer(data: Path) -> Iterator[Path]:
    """The places that everything else is made in."""
    yield data
    for pattern in ("*", "blobs/*", "blobs/sha256/*", "redis/*"):
        yield from data.glob(pattern)


def room(settings: Settings) -> Iterator[Finding]:
    """Whether there is room to begin anything new."""
    for what, folder in places(settings):
        free, floor = free_bytes(folder) // MIB, settings.free_space_floor_mib
        told = f"The {what} has {free:,} MiB free; new work begins above {floor:,}"
        yield well("space", f"{told}.") if free >= floor else wrong("space", f"{told}: make space.")


def versions() -> Iterator[Finding]:
    """Whether the packages are those that this Ganvas was tried with."""
    other = []
    for requirement in metadata.requires("ganvas") or ():
        match = PINNED.match(requirement)
        if match and (found := _version(match[1])) != match[2]:
            other.append(f"{match[1]} is {found or 'not installed'}, not {match[2]}")
    ganvas = f"Ganvas {metadata.version('ganvas')}"
    if other:
        yield wrong("versions", f"{ganvas} was tried with other packages: {'; '.join(other)}. Install it anew.")
    else:
        yield well("versions", f"{ganvas}, and every package as it was tried.")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def redis(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether Redis answers, writes what it is told to its disk, and knows the time."""
    connection = connect(settings.redis)
    try:
        seconds, micros = connection.time()
        told = connection.info("persistence")
        memory = connection.info("memory")
    except (RedisError, OSError) as error:
        if running or settings.redis_url:
            yield wrong("redis", f"It does not answer: {error}. Jobs wait in the database until it does.")
        else:
            yield note("redis", "It is not running, as no studio is; `ganvas up` starts it.")
        return
    finally:
        connection.close()
    if told.get("aof_enabled") and told.get("aof_last_write_status") != "ok":
        yield wrong("redis", "It cannot write its log: look for space. It heals by itself when there is some.")
    elif memory.get("maxmemory_policy") not in {"noeviction", None}:
        policy = memory["maxmemory_policy"]
        yield wrong("redis", f"Its maxmemory-policy is {policy}, which forgets jobs that wait; set it to noeviction.")
    else:
        yield well("redis", "It answers, and keeps what it is told.")
    yield from _clock("Redis", seconds + micros / 1e6 - time.time())


def clocks(db: Database) -> Iterator[Finding]:
    """Whether the database's clock, by which leases are judged, is also this machine's."""
    with db.read() as session:
        yield from _clock("the database", clock(session) - time.time())


def _clock(whose: str, ahead: float) -> Iterator[Finding]:
    if abs(ahead) > CLOCK_SECONDS:
        told = f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'}"
        yield wrong("clock", f"The clock of {whose} is {told} this machine's; set both by NTP.")
    else:
        yield well("clock", f"This machine and {whose} agree on the time.")
