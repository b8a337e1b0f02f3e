"""The tasks a worker runs, by name from the queue: record -> work -> record.

A delivery says which epoch of its job it is for, and is nothing to any other; without one it is for the present one.
"""

import errno
import importlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.orm import Session

from app.core import calibrations, datasets, jobs
from app.core.db import Database
from app.core.errors import GanvasError, StorageFull, Unavailable
from app.core.logs import configure_logs
from app.core.records import Dataset, Job
from app.core.settings import Settings, load_settings
from app.core.space import require_room
from app.core.storage import Storage
from worker.horse import Interrupted, breakable, interrupted
from worker.watchdog import watched

if TYPE_CHECKING:
    from worker.dataset.ingest import Ingested
    from worker.training.run import Ending

log = structlog.get_logger(__name__)

ITEM_PROGRESS_SECONDS: Final = 1.0
ROOM_SECONDS: Final = 3.0  # before a job that there was no room for is looked at again
# What draws each kind of render or projection: a module with draw(workshop, claim), which ends the job, or raises
# engine.Stopped with nothing left behind. Imported when it is asked for, as most of it is heavy.
DRAWINGS: Final = {
    "loop": "worker.rendering.films",
    "walk": "worker.rendering.films",
    "growth": "worker.rendering.films",
    "grid": "worker.rendering.sheets",
    "batch": "worker.rendering.bulk",
    "directions": "worker.rendering.finding",
    "blend": "worker.rendering.blending",
    "projection": "worker.rendering.projections",
}


@dataclass(frozen=True)
class Workshop:
    """What a task works with: opened in the horse, never carried across the fork."""

    settings: Settings
    db: Database
    storage: Storage


def prepare(job_id: str, epoch: int | None = None) -> None:
    """Turn a dataset's uploaded archive into an array and a manifest."""
    _run(job_id, epoch, _prepare)


def train(job_id: str, epoch: int | None = None) -> None:
    """Train a model on a ready dataset, from the job's last saved state where there is one."""
    _run(job_id, epoch, _train)


def render(job_id: str, epoch: int | None = None) -> None:
    """Draw something long: a film, a sheet, and what else DRAWINGS names."""
    _run(job_id, epoch, _draw)


def project(job_id: str, epoch: int | None = None) -> None:
    """Find a picture in the latent space of a model."""
    _run(job_id, epoch, _draw)


def calibrate() -> None:
    """Measure, or confirm, every speed that the API asks for."""
    settings = load_settings()
    configure_logs(settings.log_level)
    db = Database(settings.database)
    try:
        _calibrate(settings, db)
    except GanvasError as error:  # whoever still wants to know will ask again
        log.warning("calibration_ended", reason=error.message)
    finally:
        db.close()


def _run(job_id: str, epoch: int | None, work: Callable[[Workshop, jobs.Claim], None]) -> None:
    settings = load_settings()
    configure_logs(settings.log_level)
    db = Database(settings.database)
    claim = jobs.claim(db, job_id, interrupted, epoch) if _has_room(settings, db, job_id) else None
    if claim is None:
        return  # there is no room, another delivery was first, or the job was canceled while it waited
    workshop = Workshop(settings, db, Storage(settings.data / "blobs", settings.storage_url))
    try:
        with explaining(claim), watched(claim, settings.step_timeout_minutes):
            claim.patiently(lambda: _work(work, workshop, claim))
    except Interrupted:
        log.info("task_broken_off", job=job_id)
    except Exception:
        log.exception("task_failed", job=job_id)
        _fail(claim, GanvasError("The worker met an error of its own; its log has the details."))
    finally:
        claim.release()
        db.close()


def _has_room(settings: Settings, db: Database, job_id: str) -> bool:
    """Whether there is room to begin. Where there is none the job says so; it is delivered again in a while."""
    try:
        require_room(settings)
    except Unavailable as error:
        log.warning("job_not_begun", job=job_id, reason=error.message)
        with suppress(Unavailable), db.begin() as session:
            jobs.say_waiting(session, job_id, error.message)
        interrupted.wait(ROOM_SECONDS)
        return False
    return True


def _work(work: Callable[[Workshop, jobs.Claim], None], workshop: Workshop, claim: jobs.Claim) -> None:
    """Do it; a disk that was full at a place where nobody says so is told apart from other failures."""
    try:
        work(workshop, claim)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise StorageFull("The disk is full.") from error


@contextmanager
def explaining(claim: jobs.Claim) -> Iterator[None]:
    """Turn the errors that explain themselves into what becomes of the job; others pass."""
    try:
        yield
    except jobs.LeaseLost:
        log.warning("lease_lost", job=claim.job_id, epoch=claim.epoch)
    except Unavailable as error:
        log.warning("task_unavailable", job=claim.job_id, reason=error.message)
        claim.give_back(error.message, counted=not isinstance(error, StorageFull))
    except GanvasError as error:
        _fail(claim, error)


def _fail(claim: jobs.Claim, error: GanvasError) -> None:
    claim.finish("failed", message=error.message, error={"code": error.error_code, "message": error.message})


def _prepare(workshop: Workshop, claim: jobs.Claim) -> None:
    from worker.dataset.ingest import IngestStopped, NotEnoughPictures, ingest

    storage = workshop.storage
    with workshop.db.read() as session:
        dataset = datasets.find(session, claim.request["dataset"])
    with storage.scratch() as folder:
        folder.mkdir()
        try:
            found = ingest(
                storage.path(dataset.source_sha256),
                folder,
                resolution=claim.request.get("resolution"),
                crop=claim.request.get("crop") or "center",
                background=claim.request.get("background") or "white",
                on_progress=ItemProgress(claim),
                should_stop=claim.should_stop,
            )
        except IngestStopped:
            _end_stopped(claim, "Canceled.")
            return
        except NotEnoughPictures as error:
            failure = {"code": error.error_code, "message": error.message}
            change = _publish_dataset(storage, dataset.id, error.ingested, status="failed")
            claim.finish("failed", message=error.message, change=change, error=failure)
            return
        change = _publish_dataset(storage, dataset.id, found, status="ready")
    result = {"dataset": dataset.id, "count": found.kept, "verdicts": found.counts, "warnings": found.warnings}
    claim.finish("succeeded", message=found.readiness, change=change, result=result)


def _publish_dataset(
    storage: Storage, dataset_id: str, found: "Ingested", *, status: str
) -> Callable[[Session, Job], None]:
    """Store what preparation made, now; the change that publishes it, with the verdict on every file either way."""
    prepared = {
        "bytes": found.array_path.stat().st_size,
        "array_sha256": storage.adopt(found.array_path),
        "manifest_sha256": storage.adopt(found.manifest_path),
        "resolution": found.resolution,
        "sent": found.sent,
        "count": found.kept,
        "captions": found.captions,
        "labels": found.labels,
        "verdicts": found.counts,
        "readiness": found.readiness,
        "status": status,
    }

    def publish(session: Session, _job: Job) -> None:
        storage.require(str(prepared["array_sha256"]), str(prepared["manifest_sha256"]))
        row = session.get(Dataset, dataset_id)
        if row is not None:
            for name, value in prepared.items():
                setattr(row, name, value)

    return publish


class ItemProgress:
    """Tells how many files were looked at, once a second at most: each telling is a database write."""

    def __init__(self, claim: jobs.Claim) -> None:
        self._claim = claim
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Called after every file."""
        if time.monotonic() - self._told < ITEM_PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        message = f"Looked at {done} of {total} files."
        self._claim.report("tick", {"done": done, "total": total}, progress=done / total, message=message)


def _train(workshop: Workshop, claim: jobs.Claim) -> None:
    with breakable():
        import torch

        from worker.training.launch import process_count, train_together
        from worker.training.loop import choose_device
        from worker.training.run import train_and_publish
        from worker.training.share import keep_to_share, step_threads

    settings = workshop.settings
    processes = process_count(settings, claim.request["config"]["batch_size"])
    if processes > 1 or settings.train_torchrun is not None:
        train_together(settings, claim, processes, interrupted)
        if not interrupted.is_set():  # then it goes back as it is; and a job that has ended is no longer ours to give
            claim.give_back("A process of the training was lost.")
        return
    torch.set_num_threads(step_threads(settings.threads))
    keep_to_share(choose_device(settings.device), settings.train_gpu_share)
    end_training(claim, train_and_publish(workshop.db, workshop.storage, claim, device=settings.device))


def end_training(claim: jobs.Claim, ending: "Ending | None") -> None:
    """A training that came to its end succeeded; None: it was stopped."""
    if ending is None:
        _end_stopped(claim, "Canceled; the last checkpoint is kept.")
    else:
        claim.finish("succeeded", message=ending.message, result=dict(ending.result))


def _draw(workshop: Workshop, claim: jobs.Claim) -> None:
    from worker.rendering.engine import Stopped

    with breakable():
        drawing = importlib.import_module(DRAWINGS[claim.request["kind"]])
    try:
        drawing.draw(workshop, claim)
    except Stopped:
        _end_stopped(claim, "Canceled.")


def _calibrate(settings: Settings, db: Database) -> None:
    while not interrupted.is_set():
        with db.begin() as session:
            row, busy = calibrations.take(session), calibrations.is_training(session)
        if row is None:
            return
        from worker.training.calibrate import CalibrationFailed, measure_apart, this_machine
        from worker.training.share import step_threads

        threads = step_threads(settings.threads)
        machine = this_machine(settings.device, threads, gpu_share=settings.train_gpu_share)
        if calibrations.holds(row, machine, training=busy):
            with db.begin() as session:
                calibrations.confirm(session, row.key)
            continue
        speed, error = None, ""
        try:
            speed = measure_apart(json.dumps(row.config), settings.device, threads, interrupted.is_set)
        except CalibrationFailed as failed:
            error = failed.message
        with db.begin() as session:
            if speed is None and not error:
                calibrations.put_back(session, row.key)
                return
            busy = busy or calibrations.is_training(session)
            calibrations.keep(session, row.key, machine, speed, busy=busy, error=error)


def _end_stopped(claim: jobs.Claim, message: str) -> None:
    """A canceled job ends here; an interrupted one stays as it is, and releasing the claim gives it back."""
    if claim.canceled:
        claim.finish("canceled", message=message)
