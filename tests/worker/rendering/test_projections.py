"""A picture is looked for, and what comes of it is a recipe that any other call takes."""

import io
import threading
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from app.core import jobs, latents
from app.core.errors import InvalidRequest
from app.core.records import Job
from app.serving.loader import Loader
from app.serving.projecting import ProjectionOrder
from app.serving.recipe import Recipe
from worker.rendering import projections
from worker.rendering.engine import Stopped
from worker.rendering.project import likeness_of
from worker.tasks import Workshop

SIDE = 32
STEPS = 40


@pytest.fixture
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.latents.projection.SEEDS", 400)


def painted(workshop: Workshop, checkpoint: str, recipe: Recipe | None = None) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The picture of a recipe, or of a seed far from those that are looked at."""
    loader = Loader(workshop.storage.path, device="cpu", budget_bytes=2**30, max_batch=8)
    other = Recipe(model="tiny", checkpoint=checkpoint, seed=4_000_000, truncation_psi=1.0, size=(SIDE, SIDE))
    picture: np.ndarray[Any, np.dtype[np.uint8]] = loader.get(checkpoint, (recipe or other).dtype).render(
        [recipe or other]
    )[0]
    return picture


def png(picture: "np.ndarray[Any, np.dtype[np.uint8]]") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def submit(workshop: Workshop, checkpoint: str, file: bytes, **changes: Any) -> str:
    order = ProjectionOrder(
        model="tiny", checkpoint=checkpoint, target=workshop.storage.put(file), **{"steps": STEPS} | changes
    )
    with workshop.db.begin() as session:
        return jobs.submit(session, "project", order.model_dump(mode="json")).id


def draw(workshop: Workshop, job: str) -> Job:
    held = jobs.claim(workshop.db, job, threading.Event())
    assert held is not None
    try:
        projections.draw(workshop, held)
    finally:
        held.leave()
    with workshop.db.read() as session:
        return jobs.find(session, job)


@pytest.mark.usefixtures("few_seeds")
def test_the_recipe_that_is_found_draws_a_picture_nearer_than_the_nearest_seed(
    workshop: Workshop, checkpoint: str
) -> None:
    target = painted(workshop, checkpoint)
    job = draw(workshop, submit(workshop, checkpoint, png(target)))
    assert job.status == "succeeded"
    assert job.result is not None
    recipe = Recipe.model_validate(job.result["recipe"])
    found = painted(workshop, checkpoint, recipe)
    seed = painted(workshop, checkpoint, recipe.model_copy(update={"latent": None}))
    reached = likeness_of(found, target)
    assert reached.error < 0.7 * likeness_of(seed, target).error
    assert (job.result["similarity"], job.result["error"]) == pytest.approx(reached, abs=1e-6)
    assert job.result["seed_likeness"]["error"] > reached.error
    with workshop.db.read() as session:
        latents.require(session, recipe.stored())


@pytest.mark.usefixtures("few_seeds")
def test_the_film_shows_the_search_and_rests_on_what_was_found(workshop: Workshop, checkpoint: str) -> None:
    job = draw(workshop, submit(workshop, checkpoint, png(painted(workshop, checkpoint))))
    assert job.result is not None
    with av.open(str(workshop.storage.path(job.result["file"]))) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == job.result["frames"] > projections.REST_FRAMES
    assert frames[0].shape == (256, 512, 3)
    assert job.preview_sha256 is not None
    left = np.abs(frames[0][:, :256].astype(int) - frames[-1][:, :256]).mean()
    right = np.abs(frames[0][:, 256:].astype(int) - frames[-1][:, 256:]).mean()
    assert left < 2 < right  # the target stays, the search goes on


@pytest.mark.usefixtures("few_seeds")
def test_a_cancel_ends_the_search(workshop: Workshop, checkpoint: str) -> None:
    job = submit(workshop, checkpoint, png(painted(workshop, checkpoint)), steps=2000)
    held = jobs.claim(workshop.db, job, threading.Event())
    assert held is not None
    with workshop.db.begin() as session:
        jobs.cancel(session, job)
    with pytest.raises(Stopped):
        projections.draw(workshop, held)
    held.leave()


@pytest.mark.parametrize("file", [b"no picture", b"\x89PNG\r\n\x1a\n and no more"], ids=["text", "torn"])
def test_what_cannot_be_decoded_is_refused(workshop: Workshop, checkpoint: str, file: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        draw(workshop, submit(workshop, checkpoint, file))
