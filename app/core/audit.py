"""The audit log: who made or revoked a key, or deleted something, noted in the transaction that did it."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import callers
from app.core.records import AuditEntry

TARGET_CHARACTERS = 200  # as the column has


def note(session: Session, action: str, target: str) -> None:
    """Write down that the current caller does this, inside the caller's transaction.

    action: such as `model.deleted`. target: the id or name of what it is done to.
    """
    caller = callers.current()
    session.add(
        AuditEntry(actor=caller.owner, address=caller.address, action=action, target=target[:TARGET_CHARACTERS])
    )


def latest(session: Session, limit: int) -> list[AuditEntry]:
    """The last entries, in the order they were written."""
    rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit))
    return list(rows)[::-1]
