"""How fast trainings run on the machine that trains: asked for by the API, measured once by a worker, kept for ever."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.db import clock
from app.core.records import Calibration, Job, utc_now
from models.config import TrainConfig

TAKEN_SECONDS: Final = 300.0  # a worker that has not measured within this has died
# How long nobody asks whether the machine is still the same: a GPU put in, or other threads set, shows by then.
TRUSTED: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Machine:
    """What a speed is a speed of."""

    device: str
    device_bytes: int
    threads: int
    torch: str


@dataclass(frozen=True)
class Speed:
    """What one training takes."""

    seconds_per_kimg: float
    memory_bytes: int


def key(config: TrainConfig) -> str:
    """What the speed of a training hangs on, in one word: all its settings but the budget and the seed."""
    neutral = config.model_copy(update={"total_kimg": 1.0, "max_minutes": None, "seed": 0})
    return hashlib.sha256(neutral.model_dump_json().encode()).hexdigest()


def want(session: Session, configs: Sequence[TrainConfig]) -> bool:
    """Ask for the speeds of these that are missing or in doubt; whether there is anything for a worker to do."""
    idle = not is_training(session)
    trusted_since = utc_now() - TRUSTED
    wanted = False
    for config in configs:
        row = session.get(Calibration, key(config))
        if row is None:
            row = Calibration(key=key(config), config=config.model_dump(mode="json"), wanted=True)
            session.add(row)
        elif (row.confirmed_at is not None and row.confirmed_at < trusted_since) or (row.busy and idle):
            row.wanted = True
        wanted |= row.wanted
    return wanted


def known(session: Session, configs: Sequence[TrainConfig]) -> dict[str, Calibration]:
    """What was measured of these, or why it could not be, by key."""
    rows = session.scalars(select(Calibration).where(Calibration.key.in_([key(config) for config in configs])))
    return {row.key: row for row in rows if row.confirmed_at is not None}


def take(session: Session) -> Calibration | None:
    """One that is wanted, for this worker alone; None where there is none left."""
    now = clock(session)
    free = (Calibration.taken_until.is_(None)) | (Calibration.taken_until < now)
    query = select(Calibration).where(Calibration.wanted, free).limit(1)
    row = session.scalars(query.with_for_update(skip_locked=True)).one_or_none()
    if row is not None:
        row.taken_until = now + TAKEN_SECONDS
    return row


def holds(row: Calibration, machine: Machine, *, training: bool) -> bool:
    """Whether it needs no measuring again: it is of this machine, and nothing disturbed it that would not again."""
    here = (row.device, row.device_bytes, row.threads, row.torch) == (
        machine.device,
        machine.device_bytes,
        machine.threads,
        machine.torch,
    )
    return here and row.seconds_per_kimg is not None and (training or not row.busy)


def confirm(session: Session, row_key: str) -> None:
    """It still holds."""
    row = session.get_one(Calibration, row_key)
    row.confirmed_at, row.wanted, row.taken_until = utc_now(), False, None


def keep(session: Session, row_key: str, machine: Machine, speed: Speed | None, *, busy: bool, error: str = "") -> None:
    """It was measured on this machine; without a speed, `error` says why there is none."""
    row = session.get_one(Calibration, row_key)
    row.device, row.device_bytes = machine.device[:200], machine.device_bytes
    row.threads, row.torch = machine.threads, machine.torch
    row.seconds_per_kimg = None if speed is None else speed.seconds_per_kimg
    row.memory_bytes = None if speed is None else speed.memory_bytes
    row.busy, row.error, row.measured_at = busy, error[:500] or None, utc_now()
    confirm(session, row_key)


def put_back(session: Session, row_key: str) -> None:
    """It could not be measured now; another worker may."""
    session.get_one(Calibration, row_key).taken_until = None


def is_training(session: Session) -> bool:
    """Whether a training runs now."""
    return session.scalar(select(Job.id).where(Job.kind == "train", Job.status == "running").limit(1)) is not None
