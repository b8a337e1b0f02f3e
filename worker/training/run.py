"""One training job: the loop in the middle, records and storage at its edges."""

import dataclasses
import io
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.errors import CheckpointInvalid, Unavailable
from app.core.records import Dataset, Job
from app.core.storage import Storage
from models import errors as models_errors
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import TrainConfig
from worker.dataset.store import open_images
from worker.training.loop import Snapshot, Tick, train
from worker.training.state import TrainingState

log = structlog.get_logger(__name__)


def train_and_publish(db: Database, storage: Storage, claim: jobs.Claim, *, device: str) -> str | None:
    """Train as the claimed job asks, publishing every tick and snapshot; the closing sentence, or None if stopped."""
    with db.read() as session:
        dataset = datasets.require_ready(datasets.find(session, claim.request["dataset"]))
    config = TrainConfig.model_validate(claim.request["config"])
    publisher = Publisher(storage, claim, config, dataset)
    result = train(
        config,
        open_images(storage.path(dataset.array_sha256 or "")),
        on_tick=publisher.tick,
        on_snapshot=publisher.snapshot,
        should_stop=claim.should_stop,
        state=_saved_state(storage, claim),
        device=device,
    )
    if result.stopped:
        return None
    return f"Trained {config.preset} for {result.kimg:.1f} kimg in {result.minutes:.0f} minutes."


class Publisher:
    """Turns what the loop tells into events, checkpoints and the state that the next attempt would start from."""

    def __init__(self, storage: Storage, claim: jobs.Claim, config: TrainConfig, dataset: Dataset) -> None:
        self.storage = storage
        self.claim = claim
        self.config = config
        self.dataset = dataset
        self.state_sha256 = claim.state_sha256

    def tick(self, tick: Tick) -> None:
        """Progress, losses and the time that is left."""
        self.claim.report(
            "tick",
            dataclasses.asdict(tick),
            progress=tick.progress,
            eta_seconds=tick.eta_seconds,
            message=f"{tick.kimg:.1f} kimg at {tick.seconds_per_kimg:.1f} s/kimg.",
        )

    def snapshot(self, snapshot: Snapshot) -> None:
        """A servable checkpoint, its sheet, and the whole state: stored first, then published in one transaction."""
        meta = CheckpointMeta(
            config=self.config,
            kimg=snapshot.kimg,
            minutes=snapshot.minutes,
            dataset=self.dataset.name,
            metrics=snapshot.metrics,
        )
        weights = save_checkpoint(None, snapshot.generator, meta)
        sheet = io.BytesIO()
        snapshot.sheet.save(sheet, "PNG")
        stored: dict[str, Any] = {
            "sha256": self.storage.put(weights),
            "sheet_sha256": self.storage.put(sheet.getvalue()),
            "kimg": snapshot.kimg,
            "bytes_": len(weights),
            "metrics": snapshot.metrics,
        }
        state_sha256 = self.storage.put(snapshot.state())

        def publish(session: Session, job: Job) -> None:
            self.storage.require(stored["sha256"], stored["sheet_sha256"], state_sha256)
            catalogue.publish(session, self._model(), **stored)
            job.state_sha256 = state_sha256
            job.state_kimg = snapshot.kimg
            job.fruitless = 0
            jobs.tell(session, job.id, "snapshot", self._event(snapshot, stored["sha256"]))

        self.claim.publish(publish)
        superseded, self.state_sha256 = self.state_sha256, state_sha256
        if superseded is not None and superseded != state_sha256:
            try:
                self.storage.delete(superseded)
            except Unavailable as error:  # litter is no reason to end a training
                log.warning("state_not_deleted", blob=superseded, reason=error.message)

    def _event(self, snapshot: Snapshot, sha256: str) -> dict[str, Any]:
        return {
            "kimg": snapshot.kimg,
            "minutes": snapshot.minutes,
            "metrics": snapshot.metrics,
            "checkpoint": sha256,
            "sheet": f"/v1/jobs/{self.claim.job_id}/samples/{snapshot.kimg:.1f}.png",
        }

    def _model(self) -> dict[str, Any]:
        network = self.config.network
        return {
            "name": self.claim.request["name"],
            "job_id": self.claim.job_id,
            "architecture": network.architecture,
            "resolution": network.resolution,
            "z_dim": network.z_dim,
            "w_dim": network.w_dim,
            "num_ws": network.num_ws,
            "dataset": self.dataset.name,
        }


def _saved_state(storage: Storage, claim: jobs.Claim) -> TrainingState | None:
    if claim.state_sha256 is None:
        return None
    try:
        return TrainingState.from_bytes(storage.get(claim.state_sha256))
    except models_errors.CheckpointInvalid as error:
        raise CheckpointInvalid(f"The saved state of job {claim.job_id} cannot be read: {error}") from error
