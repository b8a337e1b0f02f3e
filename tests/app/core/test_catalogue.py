"""A model's name means its promoted checkpoint, name@hex exactly one; a training promotes until the artist chooses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import catalogue, jobs, saving
from app.core.db import Database
from app.core.errors import Conflict, InvalidRequest, NotFound

FIRST, SECOND = "a" * 64, "b" * 64


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    database.migrate()
    yield database
    database.close()


def model(name: str = "moss", job_id: str = "job_1") -> dict[str, Any]:
    shape = {"architecture": "dcgan", "resolution": 32, "z_dim": 8, "w_dim": 8, "num_ws": 3}
    return {"name": name, "job_id": job_id, **shape}


def publish(db: Database, sha256: str, *, job_id: str = "job_1", **options: Any) -> None:
    with db.begin() as session:
        catalogue.publish(session, model(job_id=job_id), sha256=sha256, kimg=1.0, bytes_=10, metrics={}, **options)


def resolve(db: Database, reference: str) -> tuple[str, bool]:
    with db.read() as session:
        found = catalogue.resolve(session, reference)
        return found.checkpoint.sha256, found.pinned


def test_the_newest_checkpoint_is_promoted_until_the_artist_chooses(db: Database) -> None:
    publish(db, FIRST)
    assert resolve(db, "moss") == (FIRST, False)
    publish(db, SECOND)
    assert resolve(db, "moss") == (SECOND, False)
    with db.begin() as session:
        catalogue.promote(session, "moss", FIRST[:12])
    publish(db, "c" * 64)
    assert resolve(db, "moss") == (FIRST, False)


def test_a_checkpoint_that_is_not_the_best_is_kept_without_being_promoted(db: Database) -> None:
    publish(db, FIRST, promote=False)
    assert resolve(db, "moss") == (FIRST, False)  # a model is never without one
    publish(db, SECOND, promote=False)
    assert resolve(db, "moss") == (FIRST, False)
    assert resolve(db, f"moss@{SECOND[:12]}") == (SECOND, True)
    publish(db, "c" * 64, promote=True)
    assert resolve(db, "moss") == ("c" * 64, False)


def test_a_model_remembers_what_it_was_told_in_training(db: Database) -> None:
    told = {"labels": ["cat", "dog"], "vocabulary": ["red", "cat"], "encoder": "hashed-8192"}
    with db.begin() as session:
        catalogue.publish(session, model() | told, sha256=FIRST, kimg=1.0, bytes_=10, metrics={})
        catalogue.publish(session, model("bark"), sha256=FIRST, kimg=1.0, bytes_=10, metrics={})
    with db.read() as session:
        kept, untold = catalogue.find(session, "moss"), catalogue.find(session, "bark")
    assert {name: getattr(kept, name) for name in told} == told
    assert (untold.labels, untold.vocabulary, untold.encoder) == ([], [], None)


def test_a_checkpoint_is_named_by_twelve_or_more_hex_digits(db: Database) -> None:
    publish(db, FIRST)
    assert resolve(db, f"moss@{FIRST[:12]}") == (FIRST, True)
    with pytest.raises(InvalidRequest, match="12 or more"):
        resolve(db, "moss@aaaa")
    with pytest.raises(NotFound, match="no checkpoint"):
        resolve(db, "moss@" + "d" * 12)


def test_an_unknown_model_is_not_found_by_its_code(db: Database) -> None:
    with pytest.raises(NotFound) as caught:
        resolve(db, "nobody")
    assert caught.value.error_code == "model_not_found"


def test_publishing_the_same_checkpoint_twice_adds_it_once(db: Database) -> None:
    publish(db, FIRST)
    publish(db, FIRST)
    with db.read() as session:
        assert len(catalogue.checkpoints(session, "moss")) == 1


def test_a_name_belongs_to_the_training_that_took_it(db: Database) -> None:
    publish(db, FIRST)
    with pytest.raises(Conflict, match="exists already"):
        publish(db, SECOND, job_id="job_2")


def test_a_model_that_a_training_will_start_from_cannot_be_deleted_until_that_has_a_state_of_its_own(
    db: Database,
) -> None:
    publish(db, FIRST)
    with db.begin() as session:
        waiting = jobs.submit(session, "train", {"name": "fern", "base": f"moss@{FIRST}"})
    with db.begin() as session, pytest.raises(Conflict, match=waiting.id):
        catalogue.delete(session, "moss")
    with db.begin() as session:
        saving.keep_state(jobs.find(session, waiting.id), "c" * 64, 1.0)
        session.flush()
        assert catalogue.delete(session, "moss") == [FIRST]
