"""API keys: made once, shown once, kept only as a SHA-256."""

import hashlib
import secrets
import zlib
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.errors import InvalidRequest, NotAuthenticated, NotFound
from app.core.records import ApiKey, new_id, utc_now

PREFIX: Final = "gnv_"  # lets secret scanners recognise a leaked key
SECRET_BYTES: Final = 20  # 160 random bits: nobody guesses them, so a plain SHA-256 keeps them safe at rest
SCOPES: Final = ("generate", "train", "admin")


def create(session: Session, name: str, scopes: list[str]) -> tuple[ApiKey, str]:
    """Add a key; returns its row and the key itself, which is never seen again."""
    secret = secrets.token_hex(SECRET_BYTES)
    key = f"{PREFIX}{secret}{zlib.crc32(secret.encode()):08x}"
    row = ApiKey(id=new_id("key"), name=name, sha256=_fingerprint(key), scopes=scopes)
    session.add(row)
    return row, key


def check(session: Session, key: str) -> ApiKey:
    """The row of a valid, unrevoked key; NotAuthenticated otherwise."""
    row = session.scalars(select(ApiKey).where(ApiKey.sha256 == _fingerprint(key))).one_or_none()
    if row is None or row.revoked_at is not None:
        raise NotAuthenticated("This API key is unknown or revoked. Make one with `ganvas keys create`.")
    return row


def check_scopes(scopes: list[str]) -> list[str]:
    """The scopes, or InvalidRequest naming the ones there are."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        message = f"{unknown[0]!r} is no scope; there are {', '.join(SCOPES)}."
        raise InvalidRequest(message, code="scope_unknown", param="scopes")
    return scopes


def count(session: Session) -> int:
    """How many keys are in force."""
    return session.scalar(select(func.count()).select_from(ApiKey).where(ApiKey.revoked_at.is_(None))) or 0


def revoke(session: Session, key_id: str) -> ApiKey:
    """End a key; ending it twice changes nothing."""
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"There is no key {key_id!r}. `ganvas keys list` shows them.", code="key_not_found")
    row.revoked_at = row.revoked_at or utc_now()
    return row


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
