"""API keys: made once, shown once, kept only as a SHA-256."""

import hashlib
import re
import secrets
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import Session

from app.core import audit, catalogue
from app.core.callers import SCOPES
from app.core.errors import InvalidRequest, NotAuthenticated, NotFound
from app.core.records import ApiKey, new_id, utc_now
from app.core.settings import RATE_PATTERN

PREFIX: Final = "gnv_"  # lets secret scanners recognise a leaked key
PUBLISHABLE_PREFIX: Final = "gnv_pub_"  # and leave alone what may be seen
SECRET_BYTES: Final = 20  # 160 random bits: nobody guesses them, so a plain SHA-256 keeps them safe at rest
FORM: Final = re.compile(r"gnv_(?:pub_)?([0-9a-f]{40})([0-9a-f]{8})")
HINT_CHARACTERS: Final = 4  # of the secret, to tell keys apart by; 144 bits are left
RATE: Final = re.compile(RATE_PATTERN)
PUBLISHABLE_RATE: Final = "60/minute"  # unless another is given: anybody may have the key
HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")  # names beyond ASCII as browsers send them, xn--...
MAX_ORIGINS: Final = 32
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
NOTED_SECONDS: Final = 60  # so exact is `last_used_at`


def create(
    session: Session,
    name: str,
    scopes: Sequence[str],
    *,
    model: str | None = None,
    rate: str | None = None,
    origins: Sequence[str] = (),
    expires_at: datetime | None = None,
    publishable: bool = False,
) -> tuple[ApiKey, str]:
    """Add a key; returns its row and the key itself, which is never seen again.

    model: the only one it draws from. rate: requests it may make, such as 60/minute. origins: of the pages that may use
    it, such as https://example.org. Raises InvalidRequest for what does not go together, and NotFound for the model.
    """
    _require_fit(check_scopes(scopes), model, origins, publishable=publishable)
    if model is not None:
        catalogue.find(session, model)
    if expires_at is not None and expires_at <= utc_now():
        raise InvalidRequest(f"expires_at is {expires_at.isoformat()}, which is over.", param="expires_at")
    prefix = PUBLISHABLE_PREFIX if publishable else PREFIX
    secret = secrets.token_hex(SECRET_BYTES)
    key = f"{prefix}{secret}{_checksum(secret)}"
    row = ApiKey(
        id=new_id("key"),
        name=name,
        sha256=fingerprint(key),
        hint=prefix + secret[:HINT_CHARACTERS],
        scopes=list(scopes),
        publishable=publishable,
        model=model,
        rate=check_rate(rate) if rate else PUBLISHABLE_RATE if publishable else None,
        origins=[check_origin(origin) for origin in origins],
        expires_at=expires_at,
    )
    session.add(row)
    audit.note(session, "key.created", row.id)
    return row, key


def check(session: Session, key: str) -> ApiKey:
    """The row of a key in force; NotAuthenticated otherwise."""
    if not well_formed(key):
        raise NotAuthenticated("This is no API key of ours, or a part of one: they are copied whole, as gnv_....")
    row = session.scalars(select(ApiKey).where(ApiKey.sha256 == fingerprint(key))).one_or_none()
    if row is None or row.revoked_at is not None:
        raise NotAuthenticated("This API key is unknown or revoked. Make one with `ganvas keys create`.")
    if row.expires_at is not None and row.expires_at <= utc_now():
        message = f"This API key expired on {row.expires_at:%Y-%m-%d at %H:%M} UTC. Make one with `ganvas keys create`."
        raise NotAuthenticated(message)
    return row


def is_in_force(row: ApiKey) -> bool:
    """Whether this key opens anything now."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > utc_now())


def well_formed(key: str) -> bool:
    """Whether this can be a key at all: its checksum tells, without a look into the database."""
    form = FORM.fullmatch(key)
    return form is not None and _checksum(form[1]) == form[2]


def note_use(session: Session, key_id: str) -> None:
    """Remember that a key was just used, to the minute."""
    now = utc_now()
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now - timedelta(seconds=NOTED_SECONDS))
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=now))


def origins(session: Session) -> frozenset[str]:
    """The origins of pages that some key in force names."""
    return frozenset(origin for row in session.scalars(select(ApiKey).where(_in_force())) for origin in row.origins)


def count(session: Session) -> int:
    """How many keys are in force."""
    return session.scalar(select(func.count()).select_from(ApiKey).where(_in_force())) or 0


def revoke(session: Session, key_id: str) -> ApiKey:
    """End a key; ending it twice changes nothing."""
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"There is no key {key_id!r}. `ganvas keys list` shows them.", code="key_not_found", param="key")
    if row.revoked_at is None:
        row.revoked_at = utc_now()
        audit.note(session, "key.revoked", row.id)
    return row


def fingerprint(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_scopes(scopes: Sequence[str]) -> Sequence[str]:
    """The scopes, or InvalidRequest naming the ones there are."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        what = f"{unknown[0]!r} is no scope" if unknown else "A key needs a scope"
        raise InvalidRequest(f"{what}; there are {', '.join(SCOPES)}.", code="scope_unknown", param="scopes")
    return scopes


def check_rate(rate: str) -> str:
    """The rate, or InvalidRequest saying how one is written."""
    if not RATE.fullmatch(rate):
        message = f"{rate[:40]!r} is no rate: write 10/second, 60/minute, 1000/hour or 5000/day."
        raise InvalidRequest(message, code="rate_invalid", param="rate")
    return rate


def check_origin(origin: str) -> str:
    """The origin as browsers send it, or InvalidRequest saying how one is written."""
    try:
        parts = urlsplit(origin.lower())
        port = parts.port
    except ValueError:  # a port that is none, brackets that do not close
        parts, port = urlsplit(""), None
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username or parts.password)
    name = parts.hostname or ""
    if parts.scheme not in DEFAULT_PORTS or not HOST.fullmatch(name) or not bare:
        message = f"{origin[:80]!r} is no origin of a page: write https://example.org, or http://localhost:3000."
        raise InvalidRequest(message, code="origin_invalid", param="origins")
    host = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


def _require_fit(scopes: Sequence[str], model: str | None, origins: Sequence[str], *, publishable: bool) -> None:
    """InvalidRequest for a key that would open more than it says."""
    if (model is not None or publishable) and set(scopes) != {"generate"}:
        reason, param = "A key for one model, and one that may be seen, has the scope generate alone.", "scopes"
    elif publishable and model is None:
        reason, param = "Name the model that a publishable key draws from: anybody may have the key.", "model"
    elif publishable and not origins:
        reason, param = "Name the origins of the pages that may use a publishable key.", "origins"
    elif len(origins) > MAX_ORIGINS:
        reason, param = f"{len(origins)} origins are named; a key may have {MAX_ORIGINS}.", "origins"
    else:
        return
    raise InvalidRequest(reason, code="key_does_not_fit", param=param)


def _checksum(secret: str) -> str:
    return f"{zlib.crc32(secret.encode()):08x}"


def _in_force() -> ColumnElement[bool]:
    return ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > utc_now())
