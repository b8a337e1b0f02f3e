"""Advice on presets: what fits a dataset, at the speeds that a worker measured."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import trainings
from app.api.deps import Services
from app.api.schemas.training import Advice, PresetOut, StageOut
from app.core import advice, calibrations, datasets
from app.core.errors import GanvasError
from app.core.records import Calibration, Dataset, Model
from models.config import TrainConfig
from models.presets import FROM_A_BASE, PRESETS, preset, preset_resolutions

WAIT_SECONDS: Final = 30.0  # for a measurement; most come within
POLL_SECONDS: Final = 0.5
BUSY_NOTE: Final = "Measured while a training ran: it is quicker when it has the machine to itself."


@dataclass(frozen=True)
class Candidate:
    """A preset for one dataset: its configuration, or why there is none."""

    name: str
    config: TrainConfig | None
    misfit: str = ""
    base: str | None = None


async def advise(services: Services, dataset_id: str) -> Advice:
    """What is known of every preset, after a while of waiting for what is not. Raises NotFound and Conflict."""
    dataset, candidates = await asyncio.to_thread(_candidates, services, dataset_id)
    configs = [candidate.config for candidate in candidates if candidate.config is not None]
    coming = await asyncio.to_thread(_ask, services, configs)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        known = await asyncio.to_thread(_known, services, configs)
        if not coming or len(known) == len(configs) or time.monotonic() > deadline:
            return _advice(dataset, candidates, known)
        await asyncio.sleep(POLL_SECONDS)


def _candidates(services: Services, dataset_id: str) -> tuple[Dataset, list[Candidate]]:
    with services.db.read() as session:
        dataset = datasets.require_ready(datasets.find(session, dataset_id))
        base = _base(session, services, dataset.resolution or 0)
    return dataset, [_candidate(name, dataset, base) for name in PRESETS]


def _base(session: Session, services: Services, resolution: int) -> trainings.Base | None:
    """The newest model that paints at this resolution."""
    query = select(Model).where(Model.resolution == resolution, Model.promoted.is_not(None))
    newest = session.scalars(query.order_by(Model.created_at.desc()).limit(1)).one_or_none()
    if newest is None:
        return None
    try:
        return trainings.find_base(session, services.storage, newest.name)
    except GanvasError:  # one that cannot be read is none to start from
        return None


def _candidate(name: str, dataset: Dataset, base: trainings.Base | None) -> Candidate:
    resolution, network, started = dataset.resolution or 0, None, None
    if name == FROM_A_BASE:
        if base is None:
            return Candidate(name, None, f"There is no model of {resolution} px to start from.")
        network, started = base.network, base.reference.partition("@")[0]
    elif resolution not in preset_resolutions(name):
        sizes = ", ".join(map(str, preset_resolutions(name)))
        return Candidate(name, None, f"It paints pictures of {sizes} px; this dataset has {resolution} px.")
    text = trainings.text_of(dataset, base=network)
    return Candidate(name, preset(name, resolution, network=network, text=text), base=started)


def _ask(services: Services, configs: list[TrainConfig]) -> bool:
    """Have a worker measure what is not known, or no longer sure; whether anything will come of it."""
    with services.db.begin() as session:
        wanted = calibrations.want(session, configs)
    return wanted and services.dispatcher.calibrate()


def _known(services: Services, configs: list[TrainConfig]) -> dict[str, Calibration]:
    with services.db.read() as session:
        return calibrations.known(session, configs)


def _advice(dataset: Dataset, candidates: list[Candidate], known: dict[str, Calibration]) -> Advice:
    images = dataset.count
    entries = [_entry(candidate, dataset, known) for candidate in candidates]
    good = {entry.id: entry.good_result.minutes for entry in entries if entry.fits and entry.good_result is not None}
    best = advice.advised({name: took for name, took in good.items() if name != FROM_A_BASE}, images)
    shown = [entry.model_copy(update={"advised": entry.id == best}) for entry in entries]
    summary = next((f"Start with {entry.id}. {entry.why}" for entry in shown if entry.advised), None)
    machine = next((f"{row.device}, {row.threads} threads" for row in known.values() if row.device), None)
    return Advice(
        data=shown,
        has_more=False,
        first_id=shown[0].id,
        last_id=shown[-1].id,
        dataset=dataset.id,
        images=images,
        machine=machine,
        summary=summary or f"No preset fits {dataset.resolution} px here: upload the artwork again at 64 px.",
    )


def _entry(candidate: Candidate, dataset: Dataset, known: dict[str, Calibration]) -> PresetOut:
    row = None if candidate.config is None else known.get(calibrations.key(candidate.config))
    misfit = candidate.misfit or _trouble(row)
    if candidate.config is None or misfit:
        return _misfit(candidate, row, misfit)
    speed = None if row is None else row.seconds_per_kimg
    goal = advice.goal(candidate.name, dataset.count, candidate.config.network.resolution)
    first, good = (
        StageOut(kimg=kimg, minutes=None if speed is None else round(advice.minutes(kimg, speed), 1))
        for kimg in (goal.first_kimg, goal.good_kimg)
    )
    return PresetOut(
        id=candidate.name,
        fits=True,
        advised=False,
        why=advice.why(candidate.name, candidate.base, first.minutes, good.minutes),
        risk=advice.risk(candidate.name, dataset.count, candidate.base),
        conditional=candidate.config.network.text is not None,
        base=candidate.base,
        first_look=first,
        good_result=good,
        seconds_per_kimg=speed,
        memory_bytes=None if row is None else row.memory_bytes,
        measuring=row is None,
        note=BUSY_NOTE if row is not None and row.busy else None,
    )


def _trouble(row: Calibration | None) -> str:
    """Why what fits the dataset does not fit the machine; empty where it does, or where that is not known."""
    if row is None:
        return ""
    if row.error is not None:
        return f"It could not be tried on this machine: {row.error}"
    return advice.too_large(row.memory_bytes or 0, row.device_bytes or 0) or ""


def _misfit(candidate: Candidate, row: Calibration | None, reason: str) -> PresetOut:
    return PresetOut(
        id=candidate.name,
        fits=False,
        advised=False,
        why=reason,
        risk=None,
        conditional=candidate.config is not None and candidate.config.network.text is not None,
        base=candidate.base,
        first_look=None,
        good_result=None,
        seconds_per_kimg=None if row is None else row.seconds_per_kimg,
        memory_bytes=None if row is None else row.memory_bytes,
        measuring=False,
        note=None,
    )
