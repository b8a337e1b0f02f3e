"""What carries directions over is asked for once, starts from the nearest, and overwrites nothing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.orm import Session

from app.core import carrying, catalogue, directions, jobs, latents
from app.core.db import Database
from app.core.directions import Found
from app.core.records import Direction, DirectionVector, Job, Model
from app.core.storage import Storage

FIRST, SECOND, THIRD, FOURTH = (letter * 64 for letter in "abcd")
KIMG = {FIRST: 0.0, SECOND: 10.0, THIRD: 20.0, FOURTH: 24.0}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A model of four checkpoints, the first of which it means."""
    db = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    db.migrate()
    shape = {"name": "moss", "architecture": "dcgan", "resolution": 32, "z_dim": 8, "w_dim": 8, "num_ws": 3}
    with db.begin() as made:
        for sha256, kimg in KIMG.items():
            catalogue.publish(made, shape, sha256=sha256, kimg=kimg, bytes_=1, metrics={}, promote=False)
        yield made
    db.close()


def vector(storage: Storage, seed: int) -> str:
    return latents.store(storage, np.random.RandomState(seed).randn(3, 8).astype(np.float32))


def found(session: Session, storage: Storage, checkpoint: str) -> Direction:
    what = [Found(vector(storage, 0), 0.5)]
    model = session.get_one(Model, "moss")
    args = {"method": "sefa", "layers": None, "job_id": "job_1"}
    directions.publish_found(session, storage, model, checkpoint, what, **args)  # type: ignore[arg-type]
    return directions.find(session, "moss", "sefa-0")


def carry(session: Session, storage: Storage, row: Direction, to: str, sha256: str | None, source: str) -> None:
    what = {"vector": sha256, "score": 0.5, "carried_from": source, "job_id": "job_2"}
    carrying.publish(session, storage, row.id, to, **what)  # type: ignore[arg-type]


def test_a_promotion_asks_for_it_once_and_only_where_there_is_something_to_carry(
    session: Session, storage: Storage
) -> None:
    catalogue.promote(session, "moss", SECOND)
    assert session.query(Job).count() == 0
    found(session, storage, SECOND)
    catalogue.promote(session, "moss", SECOND)
    assert session.query(Job).count() == 0
    for _ in range(2):
        catalogue.promote(session, "moss", THIRD)
    (job,) = session.query(Job).all()
    assert (job.kind, job.status) == ("render", "queued")
    assert job.request == {"kind": "directions", "model": "moss", "checkpoint": THIRD, "carry": True}
    jobs.cancel(session, job.id)
    assert carrying.want(session, "moss", THIRD) is not None  # what was canceled can be asked for again


def test_it_starts_from_the_nearest_checkpoint_that_still_has_the_direction(session: Session, storage: Storage) -> None:
    row = found(session, storage, FIRST)
    carry(session, storage, row, SECOND, vector(storage, 1), FIRST)
    carry(session, storage, row, THIRD, None, SECOND)
    nearest = carrying.nearest(session, row, FOURTH)
    assert nearest is not None
    assert nearest.checkpoint == SECOND
    directions.delete(session, row)
    assert session.query(DirectionVector).count() == 0


def test_of_two_as_near_the_one_that_was_found_itself_is_taken(session: Session, storage: Storage) -> None:
    row = found(session, storage, THIRD)
    carry(session, storage, row, FIRST, vector(storage, 1), THIRD)
    nearest = carrying.nearest(session, row, SECOND)
    assert nearest is not None
    assert nearest.checkpoint == THIRD


def test_what_is_there_by_now_or_was_deleted_meanwhile_is_left_as_it_is(session: Session, storage: Storage) -> None:
    row = found(session, storage, FIRST)
    carry(session, storage, row, FIRST, None, SECOND)
    assert directions.standings(session, "moss", FIRST)["sefa-0"].state == "found"
    directions.delete(session, row)
    carry(session, storage, row, SECOND, vector(storage, 1), FIRST)
    assert directions.standings(session, "moss", SECOND) == {}


def test_what_is_carried_takes_the_scale_that_the_direction_has_by_then(session: Session, storage: Storage) -> None:
    row = found(session, storage, FIRST)
    directions.rescale(session, storage, row, 3.0)
    carry(session, storage, row, SECOND, vector(storage, 1), FIRST)
    offset = directions.standings(session, "moss", SECOND)["sefa-0"].offset
    numbers = [latents.read(storage.get(sha256), 3, 8) for sha256 in (offset or "", vector(storage, 1))]
    assert numbers[1] is not None
    assert np.array_equal(numbers[0], 3 * numbers[1])
