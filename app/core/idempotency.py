"""Requests that carry a key of their sender's own: made once, and answered alike whenever they come again.

A claim is a row with a lock that its holder renews; the answer goes into the row in the transaction that makes what was
asked for, so that neither is there without the other. Who lost the claim to another attempt can no longer answer, and
with that no longer make. Draft: draft-ietf-httpapi-idempotency-key-header-07.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, CursorResult, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.db import Database, clock
from app.core.errors import Damaged, InvalidRequest, NotFound, Underway
from app.core.records import IdempotentRequest, utc_now
from app.core.storage import Storage

KEPT: Final = timedelta(hours=24)
GUESSED: Final = timedelta(minutes=15)  # for clients that send no key, and say only that they try again
LOCK_SECONDS: Final = 15.0  # a killed process holds up those that try again for as long
RENEW_SECONDS: Final = 5.0
KEY_CHARACTERS: Final = 255
ROUTE_CHARACTERS: Final = 300
BODY_IN_ROW_BYTES: Final = 64 * 1024  # a larger answer is a blob
SALT_BYTES: Final = 16  # a blob opens with chance, so that it is nothing else's and may go with its row
SWEPT_AT_ONCE: Final = 200
GUESSED_MARK: Final = " "  # no header's value begins with a space, so no sender can name a guessed key


@dataclass(frozen=True)
class Asked:
    """What came. fingerprint: sha256 of all of it. anew: though it came before, it is not tried again."""

    owner: str
    key: str
    route: str
    fingerprint: str
    anew: bool = False


@dataclass(frozen=True)
class Answer:
    """An answer as it is told again."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """One attempt's hold on a key; `since` tells it from those before and after it."""

    owner: str
    key: str
    since: datetime


def guessed_key(fingerprint: str) -> str:
    """The key of a request whose sender gave it none."""
    return f"{GUESSED_MARK}{fingerprint}"


def begin(session: Session, storage: Storage, asked: Asked) -> Claim | Answer:
    """The claim to make what is asked for, or the answer that it had before.

    Raises Underway while another attempt is at it, and InvalidRequest where the key came with something else.
    """
    row, added = _row(session, asked)
    if added:
        return _claim_of(row)
    kept = row.created_at > utc_now() - (GUESSED if _is_guessed(asked.key) else KEPT)
    if kept and (row.route, row.fingerprint) != (asked.route[:ROUTE_CHARACTERS], asked.fingerprint):
        raise _mismatch(row, asked)
    if row.locked_until is not None and row.locked_until > clock(session):
        raise _in_flight()
    if row.status is not None and kept and not asked.anew:
        return _read(storage, row)
    _forget_body(storage, row)
    for name, value in _fresh(session, asked).items():
        setattr(row, name, value)
    session.flush()
    return _claim_of(row)


def keep(session: Session, storage: Storage, claim: Claim, answer: Answer) -> None:
    """Keep the answer, in the transaction that made what it tells of; Underway where the claim is another's by now, and
    then that transaction must not commit."""
    large = len(answer.body) > BODY_IN_ROW_BYTES
    values = {
        "locked_until": None,
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": None if large else answer.body,
        "body_sha256": storage.put(secrets.token_bytes(SALT_BYTES) + answer.body) if large else None,
    }
    if not _changed(session, update(IdempotentRequest).where(*_held(claim)).values(values)):
        raise _in_flight()


def renew(session: Session, claim: Claim) -> None:
    """Hold the claim for longer, where it is still held."""
    locked_until = clock(session) + LOCK_SECONDS
    session.execute(update(IdempotentRequest).where(*_held(claim)).values(locked_until=locked_until))


def release(session: Session, claim: Claim) -> None:
    """Nothing was made: whoever tries again does so from the start. What was answered meanwhile stays."""
    session.execute(delete(IdempotentRequest).where(*_held(claim)))


def sweep(db: Database, storage: Storage) -> int:
    """Forget answers that are no longer told again, and their blobs; how many."""
    now = utc_now()
    guessed = IdempotentRequest.key.startswith(GUESSED_MARK)
    old = (IdempotentRequest.created_at < now - KEPT) | (guessed & (IdempotentRequest.created_at < now - GUESSED))
    swept = 0
    while True:
        with db.begin() as session:
            free = IdempotentRequest.locked_until.is_(None) | (IdempotentRequest.locked_until < clock(session))
            rows = session.scalars(
                select(IdempotentRequest).where(old, free).limit(SWEPT_AT_ONCE).with_for_update(skip_locked=True)
            ).all()
            for row in rows:
                _forget_body(storage, row)
                session.delete(row)
        swept += len(rows)
        if len(rows) < SWEPT_AT_ONCE:
            return swept


def _row(session: Session, asked: Asked) -> tuple[IdempotentRequest, bool]:
    """The key's row, locked for this transaction, and whether it was added just now."""
    place = (asked.owner, asked.key)
    found = session.get(IdempotentRequest, place, with_for_update=True)
    if found is not None:
        return found, False
    row = IdempotentRequest(owner=asked.owner, key=asked.key, **_fresh(session, asked))
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # another process of PostgreSQL's was first
        found = session.get(IdempotentRequest, place, with_for_update=True)
        if found is None:
            raise _in_flight() from None
        return found, False
    return row, True


def _fresh(session: Session, asked: Asked) -> dict[str, Any]:
    return {
        "route": asked.route[:ROUTE_CHARACTERS],
        "fingerprint": asked.fingerprint,
        "locked_until": clock(session) + LOCK_SECONDS,
        "status": None,
        "headers": {},
        "body": None,
        "body_sha256": None,
        "created_at": utc_now(),
    }


def _claim_of(row: IdempotentRequest) -> Claim:
    return Claim(row.owner, row.key, row.created_at)


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """True of the claim's row for as long as nobody answered it or took it over."""
    return (
        IdempotentRequest.owner == claim.owner,
        IdempotentRequest.key == claim.key,
        IdempotentRequest.created_at == claim.since,
        IdempotentRequest.status.is_(None),
    )


def _changed(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def _read(storage: Storage, row: IdempotentRequest) -> Answer:
    body = row.body
    if row.body_sha256 is not None:
        try:
            body = storage.get(row.body_sha256)[SALT_BYTES:]
        except NotFound as error:
            message = "This was made before, and the answer to it is no longer in storage. Send another key."
            raise Damaged(message) from error
    return Answer(row.status or 0, row.headers, body or b"")


def _forget_body(storage: Storage, row: IdempotentRequest) -> None:
    if row.body_sha256 is not None:
        storage.delete(row.body_sha256)


def _is_guessed(key: str) -> bool:
    return key.startswith(GUESSED_MARK)


def _mismatch(row: IdempotentRequest, asked: Asked) -> InvalidRequest:
    other = "another body or Accept" if row.route == asked.route[:ROUTE_CHARACTERS] else row.route
    message = f"This Idempotency-Key came with {other} before; each new request needs a key of its own."
    return InvalidRequest(message, code="idempotency_mismatch", param="Idempotency-Key")


def _in_flight() -> Underway:
    message = "The request with this Idempotency-Key is in the making; ask again in a moment."
    return Underway(message, code="idempotency_in_flight", param="Idempotency-Key")
