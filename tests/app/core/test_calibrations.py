"""A speed is measured once for a machine, by one worker at a time, and again only where it may have changed."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.core import calibrations, jobs
from app.core.calibrations import Machine, Speed
from app.core.db import Database
from app.core.records import Calibration, Job, utc_now
from models.presets import preset

CONFIG = preset("tiny", 32)
MACHINE = Machine("a processor", 8 * 2**30, 2, "2.13.0")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    made.migrate()
    yield made
    made.close()


def take(db: Database) -> Calibration | None:
    with db.begin() as session:
        return calibrations.take(session)


def want(db: Database) -> bool:
    with db.begin() as session:
        return calibrations.want(session, [CONFIG])


def measured(db: Database, *, busy: bool = False, error: str = "") -> Calibration:
    """Asked for, taken and measured."""
    assert want(db)
    row = take(db)
    assert row is not None
    with db.begin() as session:
        speed = None if error else Speed(9.5, 500_000_000)
        calibrations.keep(session, row.key, MACHINE, speed, busy=busy, error=error)
        return session.get_one(Calibration, row.key)


def test_the_key_is_of_what_speed_hangs_on_and_of_nothing_else() -> None:
    assert calibrations.key(preset("tiny", 32, total_kimg=7, seed=5)) == calibrations.key(CONFIG)
    others = [preset("tiny", 64), preset("tiny", 32, batch_size=8), preset("tiny", 32, penalty_interval=1)]
    assert len({calibrations.key(config) for config in [CONFIG, *others]}) == 4


def test_what_is_wanted_is_taken_once_until_its_worker_must_have_died(db: Database) -> None:
    assert want(db)
    row = take(db)
    assert row is not None
    assert row.config == CONFIG.model_dump(mode="json")
    assert take(db) is None
    with db.begin() as session:
        session.get_one(Calibration, row.key).taken_until = 0.0
    assert take(db) is not None


def test_what_could_not_be_measured_now_is_free_for_another_worker(db: Database) -> None:
    want(db)
    row = take(db)
    assert row is not None
    with db.begin() as session:
        calibrations.put_back(session, row.key)
    assert take(db) is not None


def test_what_was_measured_is_known_and_no_longer_wanted(db: Database) -> None:
    measured(db)
    assert not want(db)
    assert take(db) is None
    with db.read() as session:
        (row,) = calibrations.known(session, [CONFIG, preset("tiny", 64)]).values()
    assert (row.seconds_per_kimg, row.memory_bytes, row.error) == (9.5, 500_000_000, None)
    assert (row.device, row.device_bytes, row.threads, row.torch) == ("a processor", 8 * 2**30, 2, "2.13.0")


def test_a_reason_without_a_speed_is_known_too(db: Database) -> None:
    assert measured(db, error="Memory ran out.").seconds_per_kimg is None
    with db.read() as session:
        (row,) = calibrations.known(session, [CONFIG]).values()
    assert row.error == "Memory ran out."
    assert not calibrations.holds(row, MACHINE, training=False)


def test_after_a_while_the_machine_is_asked_for_again_and_the_figures_stay_known(db: Database) -> None:
    row = measured(db)
    with db.begin() as session:
        session.get_one(Calibration, row.key).confirmed_at = utc_now() - calibrations.TRUSTED - timedelta(seconds=1)
    assert want(db)
    with db.read() as session:
        assert row.key in calibrations.known(session, [CONFIG])
    taken = take(db)
    assert taken is not None
    with db.begin() as session:
        calibrations.confirm(session, taken.key)
    assert not want(db)


@pytest.mark.parametrize(
    "other",
    [
        Machine("another processor", 8 * 2**30, 2, "2.13.0"),
        Machine("a processor", 4 * 2**30, 2, "2.13.0"),
        Machine("a processor", 8 * 2**30, 4, "2.13.0"),
        Machine("a processor", 8 * 2**30, 2, "2.14.0"),
    ],
)
def test_a_speed_holds_for_its_own_machine_alone(db: Database, other: Machine) -> None:
    row = measured(db)
    assert calibrations.holds(row, MACHINE, training=False)
    assert not calibrations.holds(row, other, training=False)


def test_what_was_measured_beside_a_training_is_measured_again_once_none_runs(db: Database) -> None:
    with db.begin() as session:
        job = jobs.submit(session, "train", {}).id
        session.get_one(Job, job).status = "running"
    row = measured(db, busy=True)
    assert not want(db)
    assert calibrations.holds(row, MACHINE, training=True)
    with db.begin() as session:
        session.get_one(Job, job).status = "succeeded"
    assert want(db)
    assert not calibrations.holds(row, MACHINE, training=False)
