"""How many jobs may wait at once for one API key, and for all of loopback together."""

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.callers import Caller
from app.core.errors import Busy
from app.core.records import Job

RETRY_SECONDS: Final = 60.0  # after which one of many jobs may have begun


def require_room(session: Session, caller: Caller) -> None:
    """Busy where as many jobs wait for this caller as may; counted in the transaction that would add one more."""
    if caller.max_queued_jobs is None:
        return
    mine = select(func.count()).select_from(Job).where(Job.status == "queued", Job.key_id == caller.key_id)
    waiting = session.scalar(mine) or 0
    if waiting >= caller.max_queued_jobs:
        message = f"{waiting} of your jobs wait already, and {caller.max_queued_jobs} may; cancel some, or come back."
        raise Busy(message, retry_after=RETRY_SECONDS)
