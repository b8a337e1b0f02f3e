"""The report at the end of a training job: everything measured once more, on more pictures, as a page and as data."""

import json
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from sqlalchemy import select

from app.core import jobs, saving
from app.core.errors import TrainingDiverged
from app.core.records import Checkpoint, JobEvent
from models.checkpoint import load_generator
from models.metrics.page import report, report_page
from models.metrics.report import Reference
from models.sampling import contact_sheet, render
from worker.training.data import shown_rows
from worker.training.publish import Publisher
from worker.training.snapshots import REPORT_SEED

SHEET_PICTURES = 64
SHEET_COLUMNS = 8


def publish_report(publisher: Publisher, images: np.ndarray, device: torch.device) -> dict[str, str]:
    """Measure the last checkpoint, store the page and its data, and give what the job's result says of them."""
    storage, config = publisher.storage, publisher.config
    checkpoint = _newest_checkpoint(publisher.claim)
    if checkpoint is None:
        return {}
    generator, meta = load_generator(storage.path(checkpoint), device)
    reference = Reference.of(images, *shown_rows(config, len(images)))
    count = max(SHEET_PICTURES, reference.count)
    texts = publisher.texts
    prompts = None if texts is None else texts.prompts(np.arange(len(images)), count, config.seed)
    sheet = render(generator, range(SHEET_PICTURES), prompts=prompts and prompts[:SHEET_PICTURES])
    pictures: dict[str, Image] = {"Seeds 0 to 63": contact_sheet(sheet, SHEET_COLUMNS)}
    final: dict[str, float] = {}
    if reference.reals is not None:
        seeds = range(REPORT_SEED, REPORT_SEED + reference.count)
        fakes = render(generator, seeds, prompts=prompts and prompts[: reference.count])
        final = reference.measure(fakes)
        nearest = reference.copies_sheet(fakes)
        if nearest is not None:
            pictures["Above, the pictures nearest to a training picture; below, that one"] = nearest
    growth, ticks = _told(publisher.claim)
    title = f"{publisher.claim.request['name']}: {config.preset}, {meta.kimg:.1f} kimg in {meta.minutes:.0f} minutes"
    told = report(title, growth, ticks, final, config.model_dump(mode="json"))
    return {
        "report": f"/v1/jobs/{publisher.claim.job_id}/report",
        "report_sha256": storage.put(report_page(told, pictures).encode()),
        "report_json_sha256": storage.put(json.dumps(told, indent=1).encode()),
    }


def _newest_checkpoint(claim: jobs.Claim) -> str | None:
    """sha256 of what the job published last, in this attempt or one before; None where all of it was deleted.

    Raises TrainingDiverged where it never had anything to publish: its numbers broke before the first snapshot, and by
    then its time was over.
    """
    with claim.db.read() as session:
        query = select(Checkpoint.sha256).where(Checkpoint.job_id == claim.job_id).order_by(Checkpoint.kimg.desc())
        newest = session.scalars(query.limit(1)).one_or_none()
        if newest is None and not saving.states(jobs.find(session, claim.job_id)):
            raise TrainingDiverged(
                "The losses left the real numbers before the first snapshot, and the budget ended before that could be "
                "made up for; lower learning_rate or raise penalty_gamma, or train for longer."
            )
    return newest


def _told(claim: jobs.Claim) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the job's events told: its snapshots' figures, and its ticks."""
    with claim.db.read() as session:
        query = select(JobEvent).where(JobEvent.job_id == claim.job_id, JobEvent.type.in_(["snapshot", "tick"]))
        events = session.scalars(query.order_by(JobEvent.id)).all()
    growth = [{"kimg": event.data["kimg"], **event.data["metrics"]} for event in events if event.type == "snapshot"]
    return growth, [event.data for event in events if event.type == "tick"]
