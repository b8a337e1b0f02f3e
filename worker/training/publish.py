"""What a training tells the world: events, checkpoints, and the state that the next attempt would start from."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import structlog
from PIL.Image import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import catalogue, jobs, saving
from app.core.errors import Unavailable
from app.core.records import Checkpoint, Dataset, Job
from app.core.storage import Storage
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import TrainConfig
from models.metrics.best import is_better
from models.text import VOCABULARY_WORDS, vocabulary
from worker.training.report import Concern, Snapshot, Tick
from worker.training.state import TrainingState
from worker.training.texts import Texts

log = structlog.get_logger(__name__)


class Publisher:
    """Turns what the loop tells into rows and blobs, each while the job is still ours."""

    def __init__(
        self, storage: Storage, claim: jobs.Claim, config: TrainConfig, dataset: Dataset, texts: Texts | None
    ) -> None:
        self.storage = storage
        self.claim = claim
        self.config = config
        self.dataset = dataset
        self.texts = texts
        said = [] if texts is None else [*texts.of_pictures, *dataset.labels]
        self._vocabulary = vocabulary(said)

    def begin(self) -> None:
        """Say what the model will know of texts: never silently nothing."""
        dataset = self.dataset
        told = f"{dataset.captions:,} captions and {len(dataset.labels)} labels"
        if self.texts is not None:
            encoder = self.config.network.text.encoder if self.config.network.text else ""
            self.say(f"Learns from {told} too, read by {encoder}: the model will take prompts and labels.")
        elif dataset.captions or dataset.labels:
            self.say(f"Learns without the dataset's {told}: prompts will only pick seeds.", warn=True)
        else:
            self.say("The dataset has no captions and no labels: prompts will only pick seeds.")

    def go_on(self, state: TrainingState) -> None:
        """Say where an attempt goes on that is not the first."""
        self.claim.report("log", {"message": f"Goes on from {state.kimg:.1f} kimg.", "kimg": state.kimg})

    def say(self, message: str, *, warn: bool = False) -> None:
        """An event in words."""
        kind = {"kind": "note"} if warn else {}
        self.claim.report("warning" if warn else "log", kind | {"message": message})

    def tick(self, tick: Tick) -> None:
        """Progress, losses and the time that is left."""
        self.claim.report(
            "tick",
            dataclasses.asdict(tick),
            progress=tick.progress,
            eta_seconds=tick.eta_seconds,
            message=f"{tick.kimg:.1f} kimg at {tick.seconds_per_kimg:.1f} s/kimg.",
        )

    def concern(self, concern: Concern) -> None:
        """A warning, with the pictures that show why."""
        data: dict[str, Any] = {"kind": concern.kind, "message": concern.message, "kimg": concern.kimg}
        if concern.evidence is not None:
            sha256 = self._store(png(concern.evidence))
            data |= {"evidence_sha256": sha256}
            data |= {"evidence": f"/v1/jobs/{self.claim.job_id}/evidence/{sha256[:12]}.png"}
        self.claim.report("warning", data)

    def snapshot(self, snapshot: Snapshot) -> None:
        """A servable checkpoint, its sheet, and the whole state: stored first, then published in one transaction."""
        weights = save_checkpoint(None, snapshot.generator, self._meta(snapshot), discriminator=snapshot.discriminator)
        stored: dict[str, Any] = {
            "sha256": self._store(weights),
            "sheet_sha256": self._store(png(snapshot.sheet)),
            "kimg": snapshot.kimg,
            "bytes_": len(weights),
            "metrics": snapshot.metrics,
        }

        def publish(session: Session, job: Job) -> None:
            self.storage.require(stored["sha256"], stored["sheet_sha256"])
            promote = self._is_best(session, snapshot.metrics)
            catalogue.publish(session, self._model(), **stored, promote=promote)
            jobs.tell(session, job.id, "snapshot", self._event(snapshot, stored["sha256"]))

        self._keep_state(snapshot.state(), snapshot.kimg, publish)

    def stop(self, state: TrainingState) -> bool:
        """Save a training that stops, before anything that takes longer. Whether that is all: a process that has to
        leave has no time to measure and show what there is, and the next one goes on from here."""
        if self.claim.lost:
            raise jobs.LeaseLost(f"Job {self.claim.job_id} is no longer held by epoch {self.claim.epoch}.")
        interrupted = self.claim.interrupted
        told = {"message": f"Saved at {state.kimg:.1f} kimg, to be gone on with.", "kimg": state.kimg}
        self._keep_state(
            state.to_bytes(), state.kimg, lambda session, job: jobs.tell(session, job.id, "log", dict(told))
        )
        return interrupted

    def _keep_state(self, state: bytes, kimg: float, publish: Callable[[Session, Job], None]) -> None:
        """Store a state and publish it, with whatever else there is to publish; forget the one that nobody needs."""
        sha256 = self._store(state)
        superseded: list[str | None] = []

        def change(session: Session, job: Job) -> None:
            self.storage.require(sha256)
            publish(session, job)
            superseded[:] = [saving.keep_state(job, sha256, kimg)]

        self.claim.publish(change)
        for old in filter(None, superseded):
            self._delete_state(old)

    def _store(self, data: bytes) -> str:
        """Where there is room: it is waited for."""
        return self.claim.patiently(lambda: self.storage.put(data))

    def _is_best(self, session: Session, metrics: dict[str, float]) -> bool:
        """Whether these figures beat those of every checkpoint of this model before; the unmeasured beat none."""
        best: dict[str, float] | None = None
        query = select(Checkpoint).where(Checkpoint.model_name == self.claim.request["name"])
        for row in session.scalars(query.order_by(Checkpoint.kimg)):
            if row.metrics and is_better(row.metrics, best):
                best = row.metrics
        return is_better(metrics, best) if metrics else best is None

    def _delete_state(self, sha256: str) -> None:
        try:
            with self.claim.db.read() as session:
                if saving.state_in_use(session, sha256):
                    return
            self.storage.delete(sha256)
        except Unavailable as error:  # litter is no reason to end a training
            log.warning("state_not_deleted", blob=sha256, reason=error.message)

    def _meta(self, snapshot: Snapshot) -> CheckpointMeta:
        return CheckpointMeta(
            config=self.config,
            kimg=snapshot.kimg,
            minutes=snapshot.minutes,
            dataset=self.dataset.name,
            labels=tuple(self.dataset.labels[:VOCABULARY_WORDS]) if self.texts is not None else (),
            captioned=self.texts is not None and self.dataset.captions > 0,
            vocabulary=self._vocabulary,
            captions=snapshot.generator.captions,
            metrics=snapshot.metrics,
        )

    def _event(self, snapshot: Snapshot, sha256: str) -> dict[str, Any]:
        return {
            "kimg": snapshot.kimg,
            "minutes": snapshot.minutes,
            "metrics": snapshot.metrics,
            "checkpoint": sha256,
            "sheet": f"/v1/jobs/{self.claim.job_id}/samples/{snapshot.kimg:.1f}.png",
        }

    def _model(self) -> dict[str, Any]:
        return {
            "name": self.claim.request["name"],
            "job_id": self.claim.job_id,
            **catalogue.row_of(self.config.network),
            "labels": list(self.dataset.labels) if self.texts is not None else [],
            "vocabulary": list(self._vocabulary),
            "dataset": self.dataset.name,
        }


def png(picture: Image) -> bytes:
    """A picture's file."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()
