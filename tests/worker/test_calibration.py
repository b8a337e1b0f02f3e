"""The task that measures: everything that is wanted, once, and nothing that still holds."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core import calibrations, jobs
from app.core.calibrations import Speed
from app.core.db import Database
from app.core.records import Calibration, Job
from models.config import TrainConfig
from models.presets import preset
from worker import tasks
from worker.training import calibrate
from worker.training.calibrate import CalibrationFailed

CONFIGS = [preset("tiny", 32), preset("classic", 32)]


@pytest.fixture
def db(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    monkeypatch.setenv("GANVAS_DATA", str(tmp_path))
    monkeypatch.setenv("GANVAS_THREADS", "3")
    monkeypatch.setattr(tasks, "interrupted", threading.Event())
    made = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The presets that were measured, for a made-up speed of one second a kimg."""
    presets: list[str] = []

    def measure_apart(config: str, _device: str, threads: int, _should_stop: Callable[[], bool]) -> Speed:
        assert threads == 3
        presets.append(json.loads(config)["preset"])
        return Speed(1.0, 10)

    monkeypatch.setattr(calibrate, "measure_apart", measure_apart)
    return presets


def want(db: Database) -> bool:
    with db.begin() as session:
        return calibrations.want(session, CONFIGS)


def rows(db: Database) -> list[Calibration]:
    with db.read() as session:
        known = calibrations.known(session, CONFIGS)
    return [known[calibrations.key(config)] for config in CONFIGS]


def doubt(db: Database, **values: object) -> None:
    with db.begin() as session:
        for config in CONFIGS:
            row = session.get_one(Calibration, calibrations.key(config))
            row.wanted = True
            for name, value in values.items():
                setattr(row, name, value)


def test_all_that_is_wanted_is_measured_and_not_again_on_the_same_machine(db: Database, measured: list[str]) -> None:
    want(db)
    tasks.calibrate()
    assert sorted(measured) == ["classic", "tiny"]
    assert [(row.seconds_per_kimg, row.memory_bytes, row.threads) for row in rows(db)] == [(1.0, 10, 3)] * 2
    doubt(db)
    tasks.calibrate()
    assert len(measured) == 2
    assert not want(db)


def test_on_another_machine_it_is_measured_anew(db: Database, measured: list[str]) -> None:
    want(db)
    tasks.calibrate()
    doubt(db, device="the processor before")
    tasks.calibrate()
    assert len(measured) == 4
    assert all(row.device != "the processor before" for row in rows(db))


def test_what_cannot_be_measured_is_kept_with_the_reason_and_the_others_are_measured(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_apart(config: str, *_: object) -> Speed:
        if TrainConfig.model_validate_json(config).preset == "tiny":
            raise CalibrationFailed("Memory ran out.")
        return Speed(2.0, 20)

    monkeypatch.setattr(calibrate, "measure_apart", measure_apart)
    want(db)
    tasks.calibrate()
    tiny, classic = rows(db)
    assert (tiny.error, tiny.seconds_per_kimg) == ("Memory ran out.", None)
    assert (classic.error, classic.seconds_per_kimg) == (None, 2.0)


def test_a_training_beside_it_is_noted(db: Database, measured: list[str]) -> None:
    with db.begin() as session:
        job = jobs.submit(session, "train", {}).id
        session.get_one(Job, job).status = "running"
    want(db)
    tasks.calibrate()
    assert [row.busy for row in rows(db)] == [True, True]
    with db.begin() as session:
        session.get_one(Job, job).status = "succeeded"
    assert want(db)
    tasks.calibrate()
    assert [row.busy for row in rows(db)] == [False, False]
    assert len(measured) == 4


def test_an_interrupted_measurement_leaves_the_rest_for_the_next_worker(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        tasks.interrupted.set()

    monkeypatch.setattr(calibrate, "measure_apart", stopped)
    want(db)
    tasks.calibrate()
    with db.begin() as session:
        assert calibrations.known(session, CONFIGS) == {}
        assert calibrations.take(session) is not None
        assert calibrations.take(session) is not None
