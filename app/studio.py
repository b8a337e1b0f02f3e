"""Opening a studio: schema, first key, sample artwork and model; serving it; and the one screen `ganvas up` prints."""

import contextlib
import gc
import socket
import sys
import threading
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from app.core import keys
from app.core.db import Database
from app.core.errors import SettingsInvalid
from app.core.records import Dataset, Model
from app.core.settings import Settings
from app.core.storage import Storage

if TYPE_CHECKING:
    import uvicorn

DRAIN_SECONDS = 15  # for pictures already asked for; the supervisor waits 20
SWITCH_SECONDS = 0.001  # a thread lets the next one have Python; with the usual 0.005 painters wait for the event loop


def open_studio(settings: Settings) -> str | None:
    """Migrate the database, import the samples into an empty studio, make the first key where one is needed.

    Returns that key, which is shown once; None where none was made.
    """
    db = Database(settings.database)
    try:
        db.migrate()
        storage = Storage(settings.data / "blobs", settings.storage_url)
        _require_device(settings)
        if settings.import_samples and _is_empty(db):
            from app.samples import import_samples

            import_samples(db, storage)
        return _first_key(db, settings)
    finally:
        db.close()


def serve(settings: Settings, fd: int | None) -> None:
    """Serve the API until SIGTERM and the settings' notice after it, on an inherited socket or on their address."""
    from app.draining import DrainingServer

    sys.setswitchinterval(SWITCH_SECONDS)
    leaving = threading.Event()
    # As a socket and not as `fd`, which uvicorn takes for a Unix one: answers would wait 40 ms for acknowledgements.
    server = DrainingServer(server_config(settings, leaving), leaving, settings.drain_notice_seconds)
    gc.freeze()  # what was imported stays for good; to look through it again stops all requests for a tenth of a second
    gc.enable()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(None if fd is None else [_inherited(settings, fd)])
    if not server.started:
        sys.exit(1)


def _inherited(settings: Settings, fd: int) -> socket.socket:
    """The listening socket of this number; SettingsInvalid where others can reach it and the settings say they cannot:
    no key would be asked for."""
    listener = socket.socket(fileno=fd)
    if settings.is_loopback and listener.family in {socket.AF_INET, socket.AF_INET6}:
        host = listener.getsockname()[0]
        if not settings.model_copy(update={"host": host}).is_loopback:
            message = f"The inherited socket listens on {host}, which others can reach. Set GANVAS_HOST to {host}."
            raise SettingsInvalid(message, param="GANVAS_HOST")
    return listener


def server_config(settings: Settings, leaving: threading.Event | None = None) -> "uvicorn.Config":
    """How uvicorn serves a studio; see create_app for `leaving`."""
    import uvicorn

    from app.api.connections import PromptConnection
    from app.api.sockets import MAX_MESSAGE_BYTES, FreshSockets
    from app.main import create_app

    return uvicorn.Config(
        create_app(settings, leaving),
        host=settings.host,
        port=settings.port,
        log_config=None,  # as all else is logged: app/core/logs.py
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        http=PromptConnection,
        ws=FreshSockets,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # frames are compressed already
    )


def announce(settings: Settings, port: int, key: str | None) -> None:
    """Print where the studio is and how to make the first picture."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{port}"
    auth = f" -H 'Authorization: Bearer {key or 'YOUR-KEY'}'" if not settings.is_loopback else ""
    picture = f"{address}/v1/models/{settings.default_model or 'emoji'}/image?seed=42"
    lines = [
        "Ganvas is up.",
        "",
        f"Studio         {address}/docs",
        f"Data folder    {settings.data.absolute()}",
        f"First picture  curl{auth} '{picture}' -o 42.png",
        "Stop           Ctrl-C",
    ]
    if key is not None:
        lines.append(f"Admin key      {key}  (shown once: keep it)")
    sys.stdout.write("\n".join(["", *lines, "", ""]))
    sys.stdout.flush()


def _require_device(settings: Settings) -> None:
    """SettingsInvalid for a GPU that is asked for and not there; torch is imported only to look for one."""
    if not settings.device.startswith("cuda"):
        return
    import torch

    if not torch.cuda.is_available():
        message = f"GANVAS_DEVICE is {settings.device} and there is no CUDA device here. Set it to auto or cpu."
        raise SettingsInvalid(message, param="GANVAS_DEVICE")


def _is_empty(db: Database) -> bool:
    with db.read() as session:
        return not any(session.scalar(select(func.count()).select_from(record)) for record in (Model, Dataset))


def _first_key(db: Database, settings: Settings) -> str | None:
    if settings.is_loopback:
        return None
    with db.begin() as session:
        if keys.count(session):
            return None
        if not settings.create_first_key:
            message = f"GANVAS_HOST is {settings.host}, which others can reach, and there is no API key yet."
            raise SettingsInvalid(f"{message} Make one: ganvas keys create --scope admin", param="GANVAS_HOST")
        _row, key = keys.create(session, "first start", ["admin"])
    return key
