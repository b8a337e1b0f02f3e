"""A model's name is a plain word, and belongs to one model, training or blending at a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core import jobs, names
from app.core.db import Database
from app.core.errors import Conflict, InvalidRequest
from app.core.records import Model


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/a.sqlite3")
    database.migrate()
    yield database
    database.close()


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a@b", ".hidden", "x" * 101, "naïve"])
def test_a_name_that_could_be_mistaken_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a model"):
        names.check_name(name)


def test_a_name_is_taken_by_a_model_and_by_whatever_is_about_to_make_one(db: Database) -> None:
    shape = {"architecture": "dcgan", "resolution": 32, "z_dim": 8, "w_dim": 8, "num_ws": 3}
    with db.begin() as session:
        session.add(Model(name="moss", job_id="job_1", **shape))
        jobs.submit(session, "train", {"name": "fern"})
        blending = jobs.submit(session, "render", {"kind": "blend", "name": "mulch"}).id
        jobs.submit(session, "render", {"kind": "loop", "name": "bark"})
        for name in ("moss", "fern", "mulch"):
            with pytest.raises(Conflict, match=name):
                names.require_free(session, name)
        assert names.require_free(session, "bark") == "bark"
        assert names.require_free(session, "moss", for_job="job_1") == "moss"
        assert names.require_free(session, "mulch", for_job=blending) == "mulch"


def test_a_name_is_free_again_when_what_would_have_taken_it_was_canceled(db: Database) -> None:
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "fern"}).id
        jobs.cancel(session, job)
        assert names.require_free(session, "fern") == "fern"
