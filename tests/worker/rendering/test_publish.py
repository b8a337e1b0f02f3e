"""A finished drawing is the result of its job, and an artwork where it is to be kept."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from app.core import jobs
from app.core.db import Database
from app.core.records import Artwork
from app.core.storage import Storage
from app.serving.film import FilmRecipe
from app.serving.point import Point
from worker.rendering.progress import Progress
from worker.rendering.publish import Drawn, publish

FILM = FilmRecipe(
    kind="grid", model="moss", checkpoint="a" * 64, keyframes=(Point(seed=1), Point(seed=2)), columns=2, size=(8, 8)
)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Any]:
    db = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    db.migrate()
    yield SimpleNamespace(db=db, storage=Storage(tmp_path / "blobs"))
    db.close()


def finish(workshop: Any, *, keep: bool, lost: bool = False) -> dict[str, Any] | None:
    """Publish a sheet, as the epoch that holds its job or as one that has lost it; the job's result."""
    with workshop.db.begin() as session:
        job = jobs.submit(session, "render", {"kind": "grid"}).id
    claim = jobs.claim(workshop.db, job, threading.Event())
    assert claim is not None
    sheet = np.zeros((8, 16, 3), np.uint8)
    with workshop.storage.scratch() as place:
        place.write_bytes(b"a sheet")
        drawn = Drawn(place, "png", "image/png", (16, 8), FILM, keep, sheet, {"pictures": 2})
        try:
            if lost:
                claim.epoch += 1
                with pytest.raises(jobs.LeaseLost):
                    publish(workshop, claim, Progress(workshop.storage, claim, 2), drawn)
            else:
                publish(workshop, claim, Progress(workshop.storage, claim, 2), drawn)
        finally:
            claim.leave()
    with workshop.db.read() as session:
        return jobs.find(session, job).result


def kept(workshop: Any) -> list[Artwork]:
    with workshop.db.read() as session:
        return list(session.scalars(select(Artwork)))


def test_a_drawing_that_is_to_be_kept_is_an_artwork_of_its_job(workshop: Any) -> None:
    result = finish(workshop, keep=True)
    (artwork,) = kept(workshop)
    assert result is not None
    assert result["artwork"] == artwork.id
    assert (artwork.kind, artwork.relation, artwork.title) == ("sheet", "grid", "moss, sheet of 2 keyframes")
    assert (artwork.width, artwork.height, artwork.bytes, artwork.media_type) == (16, 8, 7, "image/png")
    assert workshop.storage.get(artwork.file_sha256) == b"a sheet"
    assert artwork.recipe_hash == FILM.hash()
    assert artwork.job_id is not None


def test_any_other_is_none_and_neither_is_one_that_another_epoch_draws(workshop: Any) -> None:
    result = finish(workshop, keep=False)
    assert result is not None
    assert "artwork" not in result
    assert finish(workshop, keep=True, lost=True) is None
    assert kept(workshop) == []
