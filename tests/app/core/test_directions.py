"""Directions are the artist's: found again they never overwrite a name or a scale, and each checkpoint has its own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.core import catalogue, directions, latents
from app.core.db import Database
from app.core.directions import Found, Standing, Step
from app.core.errors import Conflict, InvalidRequest, NotFound, Underway
from app.core.records import DirectionVector, Model
from app.core.storage import Storage

FIRST, SECOND = "a" * 64, "b" * 64
SHAPE = (3, 8)


class Studio:
    """One model of two checkpoints, and what its directions become."""

    def __init__(self, folder: Path) -> None:
        self.db = Database(f"sqlite:///{folder}/a.sqlite3")
        self.db.migrate()
        self.storage = Storage(folder / "blobs")
        model = {"architecture": "dcgan", "resolution": 32, "z_dim": 8, "w_dim": 8, "num_ws": 3}
        with self.db.begin() as session:
            for kimg, sha256 in enumerate((FIRST, SECOND)):
                model = {"name": "moss", "job_id": "job_1"} | model
                catalogue.publish(session, model, sha256=sha256, kimg=kimg, bytes_=10, metrics={})

    def vector(self, seed: int) -> str:
        return latents.store(self.storage, np.random.RandomState(seed).randn(*SHAPE).astype(np.float32))

    def numbers(self, sha256: str | None) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        assert sha256 is not None
        found = latents.read(self.storage.get(sha256), *SHAPE)
        assert found is not None
        return found

    def find(self, *seeds: int, checkpoint: str = SECOND, method: directions.Method = "sefa") -> list[str]:
        """Publish what a finding would."""
        found = [Found(self.vector(seed), 0.1) for seed in seeds]
        with self.db.begin() as session:
            return directions.publish_found(
                session,
                self.storage,
                session.get_one(Model, "moss"),
                checkpoint,
                found,
                method=method,
                layers=None,
                job_id="job_2",
            )

    def rename(self, name: str, to: str) -> None:
        with self.db.begin() as session:
            directions.rename(session, self.storage, directions.find(session, "moss", name), to)

    def rescale(self, name: str, factor: float) -> None:
        with self.db.begin() as session:
            directions.rescale(session, self.storage, directions.find(session, "moss", name), factor)

    def lose(self, name: str, checkpoint: str) -> None:
        with self.db.begin() as session:
            row = directions.find(session, "moss", name)
            session.add(DirectionVector(direction_id=row.id, checkpoint=checkpoint, carried_from=SECOND, score=0.1))

    def standings(self, checkpoint: str = SECOND) -> dict[str, Standing]:
        with self.db.read() as session:
            return directions.standings(session, "moss", checkpoint)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    made = Studio(tmp_path)
    yield made
    made.db.close()


def test_what_is_found_is_listed_in_its_order_in_the_checkpoint_it_was_found_in(studio: Studio) -> None:
    assert studio.find(0, 1) == ["sefa-0", "sefa-1"]
    assert studio.standings() == {f"sefa-{n}": Standing("found", studio.vector(n)) for n in (0, 1)}
    assert studio.standings(FIRST) == {f"sefa-{n}": Standing("waiting", None) for n in (0, 1)}
    with studio.db.read() as session:
        latents.require(session, [studio.vector(0), studio.vector(1)])


def test_finding_again_replaces_what_nobody_named_or_scaled_of_that_method(studio: Studio) -> None:
    studio.find(0, 1, 2)
    studio.find(7, method="pca")
    studio.rename("sefa-1", "rust")
    studio.rescale("sefa-2", 2.0)
    assert studio.find(3, 4, 5) == ["sefa-0", "sefa-1", "sefa-3"]  # sefa-2 is the artist's since it was scaled
    standings = studio.standings()
    assert list(standings) == ["rust", "sefa-2", "pca-0", "sefa-0", "sefa-1", "sefa-3"]
    assert standings["rust"].offset == studio.vector(1)
    assert standings["sefa-3"].offset == studio.vector(5)


def test_what_the_artist_has_named_already_is_not_listed_a_second_time(studio: Studio) -> None:
    studio.find(0, 1, 2)
    studio.rename("sefa-1", "rust")
    studio.rescale("rust", 3.0)
    assert studio.find(0, 1, 2) == ["sefa-0", "rust", "sefa-2"]
    assert list(studio.standings()) == ["rust", "sefa-0", "sefa-2"]


def test_a_scale_makes_the_step_of_every_checkpoint_anew_from_its_vector(studio: Studio) -> None:
    studio.find(0)
    with studio.db.begin() as session:
        row = directions.find(session, "moss", "sefa-0")
        latents.keep(session, studio.storage, studio.vector(9), SHAPE)
        session.add(DirectionVector(direction_id=row.id, checkpoint=FIRST, vector_sha256=studio.vector(9)))
    studio.rescale("sefa-0", -2.0)
    studio.rescale("sefa-0", 1.5)  # of the vector again, not of what the first made
    for checkpoint, seed in ((SECOND, 0), (FIRST, 9)):
        offset = studio.standings(checkpoint)["sefa-0"].offset
        assert offset is not None
        assert np.array_equal(studio.numbers(offset), studio.numbers(studio.vector(seed)) * np.float32(1.5))
        with studio.db.read() as session:
            latents.require(session, [offset, studio.vector(seed)])


def test_the_order_is_the_artists(studio: Studio) -> None:
    studio.find(0, 1, 2, 3)
    with studio.db.begin() as session:
        directions.move(session, directions.find(session, "moss", "sefa-3"), 1)
        directions.move(session, directions.find(session, "moss", "sefa-0"), 100)
        session.flush()
        directions.delete(session, directions.find(session, "moss", "sefa-1"))
    with studio.db.read() as session:
        rows = directions.of_model(session, "moss")
    assert [(row.name, row.position) for row in rows] == [("sefa-3", 0), ("sefa-2", 1), ("sefa-0", 2)]


@pytest.mark.parametrize("name", ["", " ", "a:b", "a~b", "a,b", "a@b", "a/b", "a\tb", "a\nb", "x" * 61, "a\u202eb"])
def test_a_name_that_a_url_could_not_tell_apart_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a direction"):
        directions.check_name(name)


def test_a_name_belongs_to_one_direction_of_a_model(studio: Studio) -> None:
    studio.find(0, 1)
    studio.rename("sefa-0", " roſt & röst ")
    studio.rename("roſt & röst", "roſt & röst")
    with pytest.raises(Conflict, match="already"):
        studio.rename("sefa-1", "roſt & röst")
    with pytest.raises(NotFound, match="it has roſt & röst, sefa-1"):
        studio.rename("sefa-9", "new")


def test_what_was_lost_and_found_again_takes_its_place_back_under_its_name(studio: Studio) -> None:
    studio.find(0)
    studio.rename("sefa-0", "rust")
    studio.rescale("rust", 2.0)
    studio.lose("rust", FIRST)
    studio.find(5, checkpoint=FIRST)
    studio.rename("sefa-0", "rust")
    assert list(studio.standings()) == ["rust"]
    assert studio.standings(SECOND)["rust"].state == "found"
    again = studio.standings(FIRST)["rust"]
    assert again.state == "found"
    assert np.array_equal(studio.numbers(again.offset), 2 * studio.numbers(studio.vector(5)))


def test_sliders_are_the_same_steps_however_they_were_asked_for(studio: Studio) -> None:
    studio.find(0, 1, 2)
    standing = studio.standings()
    asked = {"sefa-0": 1.0, "sefa-1": -2.5, "sefa-2": 0.0}
    steps = directions.steps("moss", SECOND, standing, asked)
    assert set(steps) == {Step("sefa-0", 1.0, studio.vector(0)), Step("sefa-1", -2.5, studio.vector(1))}
    assert directions.steps("moss", SECOND, standing, dict(reversed(asked.items()))) == steps


def test_a_slider_says_why_it_cannot_be_used(studio: Studio) -> None:
    studio.find(0, 1)
    studio.lose("sefa-1", FIRST)
    standing = studio.standings(FIRST)
    with pytest.raises(InvalidRequest, match="it has sefa-0, sefa-1") as unknown:
        directions.steps("moss", FIRST, standing, {"rust": 1.0})
    with pytest.raises(Underway, match="again in a moment") as waiting:
        directions.steps("moss", FIRST, standing, {"sefa-0": 1.0})
    with pytest.raises(Conflict, match="find it again") as lost:
        directions.steps("moss", FIRST, standing, {"sefa-1": 1.0})
    codes = [caught.value.error_code for caught in (unknown, waiting, lost)]
    assert codes == ["direction_not_found", "direction_waiting", "direction_lost"]
    assert directions.steps("moss", FIRST, standing, {"sefa-0": 0.0, "sefa-1": 0.0}) == []


def test_a_deleted_model_takes_its_directions_along_and_leaves_the_steps_to_recipes(studio: Studio) -> None:
    studio.find(0)
    with studio.db.begin() as session:
        catalogue.delete(session, "moss")
        assert directions.of_model(session, "moss") == []
        latents.require(session, [studio.vector(0)])
