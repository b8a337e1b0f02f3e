"""A studio with two checkpoints of a tiny model, for drawings that leave it as it is."""

import importlib
import threading
from collections.abc import Callable, Iterator

import pytest

from app.core import jobs
from app.core.db import Database
from app.core.records import Job
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.film import FilmOrder
from worker.tasks import DRAWINGS, Workshop

Draw = Callable[[FilmOrder], Job]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    folder = tmp_path_factory.mktemp("drawings")
    settings = Settings(data=folder, threads=2, max_batch=8)
    db = Database(settings.database)
    db.migrate()
    yield Workshop(settings, db, Storage(folder / "blobs"))
    db.close()


@pytest.fixture(scope="module")
def checkpoints(workshop: Workshop, publish_tiny: Callable[..., str]) -> list[str]:
    """Of one training, of the model `tiny`."""
    return [publish_tiny(workshop.db, workshop.storage, seed=seed, kimg=1.0 + seed, contrast=5) for seed in (0, 1)]


@pytest.fixture
def checkpoint(checkpoints: list[str]) -> str:
    """The first of them."""
    return checkpoints[0]


@pytest.fixture
def draw(workshop: Workshop) -> Draw:
    """Have a film or a sheet drawn as the worker does; the job as it ended."""

    def drawn(wanted: FilmOrder) -> Job:
        with workshop.db.begin() as session:
            job = jobs.submit(session, "render", wanted.model_dump(mode="json"))
        claim = jobs.claim(workshop.db, job.id, threading.Event())
        assert claim is not None
        try:
            importlib.import_module(DRAWINGS[wanted.kind]).draw(workshop, claim)
        finally:
            claim.leave()
        with workshop.db.read() as session:
            return jobs.find(session, job.id)

    return drawn
