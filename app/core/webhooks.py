"""Webhooks: what is owed to whoever asked to be told of a job, kept in the database until it has been told.

Messages are written in the transaction that changes the job, so that no change goes untold and none is told that did
not happen. A message may be told twice, under the same id; those of one job are told one at a time.
"""

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pydantic_core import to_jsonable_python
from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from app.core.db import clock
from app.core.errors import InvalidRequest
from app.core.records import Job, Webhook, WebhookMessage, new_id, utc_now

PROGRESS: Final = "job.progress"
MESSAGES: Final = {
    ("status", "running"): "job.started",
    ("status", "succeeded"): "job.succeeded",
    ("status", "failed"): "job.failed",
    ("status", "canceled"): "job.canceled",
    ("snapshot", None): "job.snapshot",
    ("tick", None): PROGRESS,
}
DETAILED: Final = frozenset({"snapshot", "tick"})  # events that say more than the job's row does
SHOWN: Final = (  # as GET /v1/jobs/{job} shows them
    "id",
    "kind",
    "status",
    "progress",
    "message",
    "eta_seconds",
    "attempts",
    "created_at",
    "started_at",
    "finished_at",
    "request",
    "result",
    "error",
)
PROGRESS_GAP_SECONDS: Final = 0.5  # between two messages of progress of one job
HOLD_SECONDS: Final = 30.0  # of a message by a sender: beyond the longest attempt
RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 3_600.0, 18_000.0, 36_000.0)  # then a message is given up
KEPT: Final = timedelta(days=7)  # that messages stay after they were told or given up
PREFIX: Final = "whsec_"  # of a secret
SECRET_BYTES: Final = 32
SHORTEST_SECRET_BYTES, LONGEST_SECRET_BYTES = 24, 64  # Standard Webhooks' own bounds
ERROR_CHARACTERS: Final = 500  # as the column has


@dataclass(frozen=True)
class Delivery:
    """A message that a sender has in hand, and where it goes."""

    id: str
    job_id: str
    type: str
    attempt: int  # from 1
    url: str
    secret: str = field(repr=False)
    payload: dict[str, Any]


def new_secret() -> str:
    """A secret to sign with: whsec_ and 256 random bits in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check_secret(secret: str) -> str:
    """The secret, or InvalidRequest where Standard Webhooks' libraries could not sign with it."""
    try:
        size = len(base64.b64decode(secret.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if not secret.startswith(PREFIX) or not SHORTEST_SECRET_BYTES <= size <= LONGEST_SECRET_BYTES:
        message = (
            f"A webhook's secret is {PREFIX} and {SHORTEST_SECRET_BYTES} to {LONGEST_SECRET_BYTES} bytes in "
            "base64; leave it out to be given one."
        )
        raise InvalidRequest(message, code="webhook_refused", param="webhook.secret")
    return secret


def attach(session: Session, job_id: str, url: str, secret: str) -> None:
    """Tell of this job at a URL, from its next change on."""
    session.add(Webhook(job_id=job_id, url=url, secret=secret))
    session.flush()


def note(session: Session, job_id: str, event: str, data: dict[str, Any]) -> None:
    """Owe a message about an event of a job, inside the transaction that the event belongs to."""
    hook = session.get(Webhook, job_id)
    type_ = MESSAGES.get((event, data.get("status")))
    if hook is None or type_ is None:
        return
    job, now = session.get_one(Job, job_id), clock(session)
    payload = {"type": type_, "timestamp": utc_now(), "data": _shown(job)}
    if event in DETAILED:
        payload["event"] = data
    payload = to_jsonable_python(payload)
    waiting = _waiting_progress(session, job_id, now)
    if type_ == PROGRESS and waiting:
        for message in waiting:  # there is one; it keeps its place in the back-off, but not its id: that may be known
            message.id, message.payload, message.created_at = new_id("msg"), payload, utc_now()
        return
    if job.finished_at is not None:
        for message in waiting:
            session.delete(message)
    session.add(WebhookMessage(id=new_id("msg"), job_id=job_id, type=type_, payload=payload, next_at=now))


def due(session: Session) -> bool:
    """Whether anything can be told now; takes no lock."""
    now = clock(session)
    return bool(session.scalar(select(exists().where(*_due(now)))))


def take(session: Session, most: int) -> list[Delivery]:
    """Messages to tell now, at most one of each job; no other sender gets them for HOLD_SECONDS."""
    now = clock(session)
    busy = select(WebhookMessage.job_id).where(WebhookMessage.taken_until >= now)  # who hangs holds up no others
    owing = select(WebhookMessage.job_id).where(*_due(now), WebhookMessage.job_id.not_in(busy))
    query = select(Webhook).where(Webhook.job_id.in_(owing)).limit(most)
    query = query.with_for_update(skip_locked=True, key_share=True)  # messages may be added meanwhile
    taken = [_take_next(session, hook, now) for hook in session.scalars(query)]
    return [delivery for delivery in taken if delivery is not None]


def put_back(session: Session, ids: Sequence[str]) -> None:
    """Let go of messages that were taken and not told; the next sender may try at once."""
    for message in session.scalars(select(WebhookMessage).where(WebhookMessage.id.in_(ids)).with_for_update()):
        message.taken_until = None
        message.attempts -= 1


def told(session: Session, message_id: str) -> None:
    """Note that a message was accepted."""
    message = session.get(WebhookMessage, message_id, with_for_update=True)
    if message is None:  # its job was deleted meanwhile
        return
    if message.type == PROGRESS:  # nobody asks for these again, and there are many
        session.get_one(Webhook, message.job_id).progress_at = clock(session)
        session.delete(message)
        return
    message.next_at, message.taken_until, message.error, message.delivered_at = None, None, None, utc_now()


def failed(session: Session, message_id: str, reason: str, waits: Sequence[float] = RETRY_SECONDS) -> bool:
    """Note that a message was not accepted: whether it will be tried again, which is after the next of `waits`."""
    message = session.get(WebhookMessage, message_id, with_for_update=True)
    if message is None:
        return False
    now, attempts = clock(session), message.attempts
    if message.type == PROGRESS:
        newer = _waiting_progress(session, message.job_id, now)
        if newer or session.get_one(Job, message.job_id).finished_at is not None:
            session.delete(message)  # what it says is old by now
            if not newer:
                return False
            message = newer[0]
    message.attempts, message.taken_until, message.error = attempts, None, reason[:ERROR_CHARACTERS]
    tried = max(attempts, 1)  # none is counted of one that was put back meanwhile
    message.next_at = now + waits[tried - 1] if tried <= len(waits) else None
    return message.next_at is not None


def sweep(session: Session) -> None:
    """Forget what was told or given up long ago."""
    settled = (WebhookMessage.next_at.is_(None), WebhookMessage.created_at < utc_now() - KEPT)
    session.execute(delete(WebhookMessage).where(*settled))


def _due(now: float) -> tuple[Any, ...]:
    """What is true of a message that may be taken."""
    free = WebhookMessage.taken_until.is_(None) | (WebhookMessage.taken_until < now)
    return WebhookMessage.next_at <= now, free


def _take_next(session: Session, hook: Webhook, now: float) -> Delivery | None:
    """The oldest message of a job whose turn it is; None while another of that job is being told."""
    own = WebhookMessage.job_id == hook.job_id
    if session.scalar(select(exists().where(own, WebhookMessage.taken_until >= now))):
        return None
    oldest = select(WebhookMessage).where(own, *_due(now)).order_by(WebhookMessage.created_at).limit(1)
    message = session.scalar(oldest.with_for_update(skip_locked=True))  # not while its job puts a newer in its place
    if message is None:
        return None
    if message.type == PROGRESS:
        if hook.progress_at is not None and now < hook.progress_at + PROGRESS_GAP_SECONDS:
            message.next_at = hook.progress_at + PROGRESS_GAP_SECONDS
            return None
        hook.progress_at = now
    message.taken_until = now + HOLD_SECONDS
    message.attempts += 1
    return Delivery(
        message.id, message.job_id, message.type, message.attempts, hook.url, hook.secret, dict(message.payload)
    )


def _waiting_progress(session: Session, job_id: str, now: float) -> list[WebhookMessage]:
    """Progress of a job that is still to be told and that no sender has in hand."""
    free = WebhookMessage.taken_until.is_(None) | (WebhookMessage.taken_until < now)
    waiting = (WebhookMessage.job_id == job_id, WebhookMessage.type == PROGRESS, WebhookMessage.next_at.is_not(None))
    return list(session.scalars(select(WebhookMessage).where(*waiting, free).with_for_update(skip_locked=True)))


def _shown(job: Job) -> dict[str, Any]:
    shown = {name: getattr(job, name) for name in SHOWN}
    return shown | {"object": "job", "position": None}  # nothing is told of a job that waits
