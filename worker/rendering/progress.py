"""What is told of a drawing in the making: how far it is, when it will be done, and what it looks like."""

import io
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import structlog
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import jobs, saving
from app.core.errors import Unavailable
from app.core.records import Job
from app.core.storage import Storage
from app.serving.encode import XMP, Pixels
from worker.rendering.engine import Stopped

log = structlog.get_logger(__name__)

TELLING_SECONDS: Final = 1.5  # between two tellings, each a database write and a small file
PREVIEW_SIDE: Final = 256  # pixels
PREVIEW_QUALITY: Final = 80


class Progress:
    """Counts steps, of a number that is known: pictures painted, frames written; and tells of them now and then."""

    def __init__(self, storage: Storage, claim: jobs.Claim, total: int, done: int = 0) -> None:
        self._storage = storage
        self._claim = claim
        self.total = total
        self.done = done
        self._done_before = done  # by an attempt before this one
        self._began = time.monotonic()
        self._told: float | None = None

    def step(self) -> bool:
        """One more step is done; whether it is time to tell. Raises Stopped where the job has to stop."""
        if self._claim.should_stop():
            raise Stopped
        self.done += 1
        return self._told is None or time.monotonic() - self._told >= TELLING_SECONDS

    def tell(self, doing: str, picture: Pixels) -> None:
        """Say what is done, in words, and show it. Raises LeaseLost where another epoch has the job."""
        self._told = time.monotonic()
        mine = self.done - self._done_before
        left = (self._told - self._began) / mine * (self.total - self.done) if mine > 1 else None
        progress, stored = self.done / self.total, self._storage.put(preview(picture))
        forget: list[Callable[[], None]] = []

        def change(session: Session, job: Job) -> None:
            job.progress, job.message, job.eta_seconds = progress, doing, left
            forget.append(self.name(job, stored))
            jobs.tell(session, job.id, "tick", {"done": self.done, "total": self.total})

        try:
            self._claim.publish(change)
        except jobs.LeaseLost:
            self._forget(stored)
            raise
        forget[0]()

    def poster(self, picture: Pixels) -> str:
        """What a finished drawing is shown by, stored; `name` it in the transaction that publishes the drawing."""
        return self._storage.put(preview(picture))

    def name(self, job: Job, sha256: str) -> Callable[[], None]:
        """Let a job be shown by a stored preview; what has to be done once that is committed."""
        superseded = saving.keep_preview(job, sha256)
        return lambda: None if superseded is None else self._forget(superseded)

    def _forget(self, sha256: str) -> None:
        """Delete a preview that no job is shown by."""
        try:
            with self._claim.db.read() as session:
                if session.scalar(select(Job.id).where(Job.preview_sha256 == sha256).limit(1)) is not None:
                    return
            self._storage.delete(sha256)
        except Unavailable as error:  # litter is no reason to end a drawing
            log.warning("preview_not_deleted", blob=sha256, reason=error.message)


def preview(picture: Pixels) -> bytes:
    """A small WebP of a picture, with the mark of AI-made media and nothing else."""
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else np.ascontiguousarray(picture))
    image = image.convert("RGBA" if picture.shape[2] in (2, 4) else "RGB")
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=PREVIEW_QUALITY, method=0, xmp=XMP)
    return file.getvalue()
