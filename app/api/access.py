"""Who may ask: Host and Origin on loopback, API keys anywhere else."""

import asyncio
import hashlib
import time
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from app.core import keys
from app.core.db import Database
from app.core.errors import NotAllowed, NotAuthenticated
from app.core.settings import Settings

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
KEY_TRUSTED_SECONDS: Final = 30.0  # so long a revoked key may go on; a picture then needs no database
# Probes carry no keys, and the documentation holds nothing of this studio's own.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/docs", "/v1/openapi.json"})
EVERY_SCOPE: Final = frozenset(keys.SCOPES)
SUBPROTOCOL: Final = "ganvas"  # of websockets
KEY_SUBPROTOCOL: Final = "key."  # and the key: of all headers, this is the only one that a page can set on a websocket


class Gate:
    """Lets a request in with the scopes it has, or raises NotAuthenticated or NotAllowed."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._db = db
        self._loopback = settings.is_loopback
        self._names = LOOPBACK_NAMES | {settings.host} | set(settings.allowed_hosts)
        self._trusted: dict[str, tuple[frozenset[str], float]] = {}

    async def admit(self, path: str, headers: Headers) -> frozenset[str]:
        """The scopes of this request, from its head alone."""
        if path in OPEN_PATHS:
            return frozenset()
        if self._loopback:
            self._check_names(headers)
            return EVERY_SCOPE
        key = _key(headers)
        if not key:
            raise NotAuthenticated("Send an API key as `Authorization: Bearer gnv_...`.")
        return await self._scopes(key)

    def _check_names(self, headers: Headers) -> None:
        """A page of another site that a browser here has open can send requests too: its names give it away."""
        host = headers.get("host", "")
        if _hostname(f"//{host}") not in self._names:
            raise NotAllowed(f"Host {host!r} is not this studio. Add it to GANVAS_ALLOWED_HOSTS to allow it.")
        origin = headers.get("origin")
        if origin is not None and _hostname(origin) not in self._names:
            raise NotAllowed(f"Pages of {origin!r} may not use this studio. GANVAS_ALLOWED_HOSTS can allow them.")

    async def _scopes(self, key: str) -> frozenset[str]:
        fingerprint = hashlib.sha256(key.encode()).hexdigest()
        scopes, trusted_until = self._trusted.get(fingerprint, (frozenset[str](), 0.0))
        if time.monotonic() >= trusted_until:
            scopes = await asyncio.to_thread(self._look_up, key)
            self._trusted[fingerprint] = (scopes, time.monotonic() + KEY_TRUSTED_SECONDS)
        return scopes

    def _look_up(self, key: str) -> frozenset[str]:
        with self._db.read() as session:
            scopes = frozenset(keys.check(session, key).scopes)
        return EVERY_SCOPE if "admin" in scopes else scopes


def _key(headers: Headers) -> str:
    """The key that came; "" without one."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    offered = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
    keys_ = (name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL))
    return next(keys_, "")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # brackets that do not close
        return None
