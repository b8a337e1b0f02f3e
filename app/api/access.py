"""Who may ask: Host and Origin on loopback, API keys anywhere else."""

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import structlog
from starlette.types import Scope

from app.core import keys
from app.core.callers import EVERY_SCOPE, Caller
from app.core.db import Database
from app.core.errors import GanvasError, NotAllowed, NotAuthenticated
from app.core.records import utc_now
from app.core.settings import Settings

log = structlog.get_logger(__name__)

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
KEY_TRUSTED_SECONDS: Final = 30.0  # so long a key revoked elsewhere may go on; a picture then needs no database
DOCS_PARTS: Final = ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/docs/start.js")
ORIGINS_TRUSTED_SECONDS: Final = 30.0
REMEMBERED_ADDRESSES: Final = 1024
PROCESS_PROBE: Final = "/livez"  # stands on nothing that could be down
# Probes carry no keys, and the documentation holds nothing of this studio's own.
OPEN_PATHS: Final = frozenset({PROCESS_PROBE, "/readyz", "/v1/openapi.json", "/docs", *DOCS_PARTS})
ANYBODY: Final = Caller(name="anybody")  # who asks for one of these
SUBPROTOCOL: Final = "ganvas"  # of websockets
KEY_SUBPROTOCOL: Final = "key."  # and the key: of all headers, this is the only one that a page can set on a websocket
READS: Final = frozenset({"GET", "HEAD"})
# What a key for one model opens, as method and path. Behind these the model is looked at: app/core/callers.py.
DRAWING: Final = re.compile(
    r"(GET|HEAD) /v1/models/[^/]+(/image)?|POST /v1/images/(generations|variations)|WEBSOCKET /v1/models/[^/]+/live"
)
READING: Final = re.compile(r"(GET|HEAD) /v1/models(/[^/]+/(download|onnx|directions(/[^/]+/strip)?))?")
ONCE: Final = frozenset({b"authorization", b"host", b"origin", b"sec-fetch-site"})
WANTED: Final = ONCE | {b"sec-websocket-protocol"}

Head = Mapping[bytes, str]  # the headers that tell who asks


@dataclass(frozen=True, slots=True)
class _Trusted:
    """A key that was looked up, and what is known of it for a while."""

    caller: Caller
    origins: frozenset[str]
    until: float  # monotonic seconds
    noted_until: float  # its use is written down again after that


class Gate:
    """Lets a request in with what it may do, or raises NotAuthenticated or NotAllowed. It belongs to one event loop."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._max_queued_jobs = settings.max_queued_jobs
        self._loopback = settings.is_loopback
        self._names = LOOPBACK_NAMES | {settings.host} | set(settings.allowed_hosts)
        self._trusted: dict[str, _Trusted] = {}
        self._origins: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._changes = 0  # of keys, made here
        self._notes: set[asyncio.Task[None]] = set()
        self._local = lru_cache(REMEMBERED_ADDRESSES)(self._local_caller)

    async def admit(self, scope: Scope, head: Head) -> Caller:
        """Who sent this request, from its head alone, as read_head gives it."""
        address = scope["client"][0] if scope["client"] else None
        key = _key(head)
        if self._loopback:
            self._check_names(scope, head)
            if not key.startswith(keys.PREFIX) and is_local(scope):  # clients that need a key send any word
                return self._local(address)
        if not key:
            raise NotAuthenticated("Send an API key as `Authorization: Bearer gnv_...`.")
        trusted = await self._look_up(key)
        _check_origin(trusted, head.get(b"origin"))
        caller = replace(trusted.caller, address=address)
        _check_route(caller, scope)
        return caller

    async def names(self, origin: str) -> bool:
        """Whether some key in force is for pages of this origin."""
        origins, until = self._origins
        if time.monotonic() >= until:
            changes = self._changes
            origins = await asyncio.to_thread(self._read_origins)
            if changes == self._changes:
                self._origins = (origins, time.monotonic() + ORIGINS_TRUSTED_SECONDS)
        return origin in origins

    def forget(self) -> None:
        """Look all keys up again: one was made or revoked here."""
        self._changes += 1
        self._trusted.clear()
        self._origins = (frozenset(), 0.0)

    def _local_caller(self, address: str | None) -> Caller:
        return Caller(scopes=EVERY_SCOPE, address=address, max_queued_jobs=self._max_queued_jobs)

    def _check_names(self, scope: Scope, head: Head) -> None:
        """A page of another site that a browser here has open can send requests too: its names give it away."""
        host = head.get(b"host", "")
        if _hostname(f"//{host}") not in self._names:
            raise NotAllowed(f"Host {host!r} is not this studio. Add it to GANVAS_ALLOWED_HOSTS to allow it.")
        origin = head.get(b"origin")
        if origin is not None and _hostname(origin) not in self._names:
            raise NotAllowed(f"Pages of {origin!r} may not use this studio. GANVAS_ALLOWED_HOSTS can allow them.")
        if head.get(b"sec-fetch-site") == "cross-site" and scope.get("method", "GET") not in READS:
            raise NotAllowed("Pages of other sites may not change anything here.")  # a form of theirs, say

    async def _look_up(self, key: str) -> _Trusted:
        fingerprint = keys.fingerprint(key)
        trusted = self._trusted.get(fingerprint)
        now = time.monotonic()
        if trusted is None or now >= trusted.until:
            changes, noted_until = self._changes, 0.0 if trusted is None else trusted.noted_until
            self._trusted.pop(fingerprint, None)
            trusted = await asyncio.to_thread(self._read, key, noted_until)
            if changes == self._changes:
                self._trusted[fingerprint] = trusted
        if now >= trusted.noted_until:
            noted = replace(trusted, noted_until=now + keys.NOTED_SECONDS)
            if self._trusted.get(fingerprint) is trusted:  # not where keys changed while it was looked up
                self._trusted[fingerprint] = noted
            note = asyncio.create_task(asyncio.to_thread(self._note_use, trusted.caller.key_id or ""))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)
        return trusted

    def _read(self, key: str, noted_until: float) -> _Trusted:
        with self._db.read() as session:
            row = keys.check(session, key)
        left = KEY_TRUSTED_SECONDS
        if row.expires_at is not None:
            left = min(left, (row.expires_at - utc_now()).total_seconds())
        caller = Caller(
            scopes=EVERY_SCOPE if "admin" in row.scopes else frozenset(row.scopes),
            key_id=row.id,
            name=row.name,
            model=row.model,
            publishable=row.publishable,
            rate=row.rate,
            max_queued_jobs=self._max_queued_jobs,
        )
        return _Trusted(caller, frozenset(row.origins), time.monotonic() + left, noted_until)

    def _read_origins(self) -> frozenset[str]:
        with self._db.read() as session:
            return keys.origins(session)

    def _note_use(self, key_id: str) -> None:
        try:
            with self._db.begin() as session:
                keys.note_use(session, key_id)
        except GanvasError as error:  # a picture need not wait for a disk that is full
            log.warning("key_use_not_noted", key=key_id, reason=error.message)


def is_local(scope: Scope) -> bool:
    """Whether a request came from this machine, over TCP or a Unix socket."""
    client = scope["client"]
    return client is None or client[0].startswith("127.") or client[0] == "::1"


def read_head(scope: Scope) -> Head:
    """The headers that tell who asks; NotAuthenticated or NotAllowed where one that stands alone came twice."""
    head: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name not in WANTED:
            continue
        text = value.decode("latin-1")
        if name in head:
            if name == b"authorization":
                raise NotAuthenticated("Authorization came more than once; send one API key.")
            if name in ONCE:
                raise NotAllowed(f"{name.decode()} came more than once.")
            text = f"{head[name]},{text}"
        head[name] = text
    return head


def _key(head: Head) -> str:
    """The key that came; "" without one."""
    scheme, _, key = head.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    protocols = head.get(b"sec-websocket-protocol")
    offered = [name.strip() for name in protocols.split(",")] if protocols else []
    return next((name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL)), "")


def _check_origin(trusted: _Trusted, origin: str | None) -> None:
    """A key that names origins is not for the pages of others; one that may be seen is for pages only."""
    if trusted.origins and origin not in trusted.origins and (origin is not None or trusted.caller.publishable):
        whose = "requests that come from no page" if origin is None else f"pages of {origin!r}"
        raise NotAllowed(f"This key is not for {whose}.", code="origin_not_allowed")


def _check_route(caller: Caller, scope: Scope) -> None:
    """NotAllowed where a key for one model asks for what is not of one model."""
    if caller.model is None:
        return
    asked = f"{scope['method'] if scope['type'] == 'http' else 'WEBSOCKET'} {scope['path']}"
    if DRAWING.fullmatch(asked) or (READING.fullmatch(asked) and not caller.publishable):
        return
    raise NotAllowed(f"This key is for drawing from the model {caller.model!r}, and for nothing else.")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # brackets that do not close
        return None
