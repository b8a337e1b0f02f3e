"""Many pictures get into one zip, each the one of its recipe, whatever becomes of the worker in between."""

import threading
from collections.abc import Callable
from typing import Any
from zipfile import ZipFile

import pytest

from app.core import jobs, saving
from app.core.errors import GanvasError
from app.core.records import Job
from app.serving.bulk import BulkOrder
from app.serving.encode import encode, read_recipe
from app.serving.loader import Loader
from app.serving.recipe import Recipe
from worker.rendering import bulk
from worker.rendering.engine import Stopped
from worker.tasks import Workshop

Submit = Callable[..., str]


class Killed(GanvasError):
    """Ends an attempt where a kill would."""


@pytest.fixture
def submit(workshop: Workshop, checkpoint: str) -> Submit:
    def make(seeds: str, **changes: Any) -> str:
        recipe = Recipe(model="tiny", checkpoint=checkpoint, seed=0, size=(32, 32))
        order = BulkOrder(**{"recipe": recipe, "seeds": seeds, "output_format": "png", "metadata": "full"} | changes)
        with workshop.db.begin() as session:
            return jobs.submit(session, "render", order.model_dump(mode="json")).id

    return make


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PART", 7)


def claim(workshop: Workshop, job: str, interrupted: threading.Event | None = None) -> jobs.Claim:
    held = jobs.claim(workshop.db, job, interrupted or threading.Event())
    assert held is not None
    return held


def row(workshop: Workshop, job: str) -> Job:
    with workshop.db.read() as session:
        return jobs.find(session, job)


def draw(workshop: Workshop, job: str) -> None:
    held = claim(workshop, job)
    try:
        bulk.draw(workshop, held)
    finally:
        held.leave()


def entries(workshop: Workshop, job: str) -> dict[str, bytes]:
    result = row(workshop, job).result
    assert result is not None
    with ZipFile(workshop.storage.path(result["file"])) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def alone(workshop: Workshop, checkpoint: str, seed: int) -> bytes:
    """The file of one seed as the service writes it."""
    loader = Loader(workshop.storage.path, device="cpu", budget_bytes=2**30, max_batch=8)
    recipe = Recipe(model="tiny", checkpoint=checkpoint, seed=seed, size=(32, 32), device="cpu", dtype="float32")
    return encode(loader.get(checkpoint).render([recipe])[0], output_format="png", recipe=recipe)


def test_every_seed_is_there_once_and_is_the_picture_of_its_recipe(
    workshop: Workshop, submit: Submit, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANVAS_DTYPE", "float32")
    workshop = Workshop(workshop.settings.model_copy(update={"dtype": "float32"}), workshop.db, workshop.storage)
    job = submit("0-19,40")
    draw(workshop, job)
    files = entries(workshop, job)
    assert set(files) == {f"{seed:010d}.png" for seed in [*range(20), 40]} | {"recipe.json"}
    for seed in (0, 13, 40):
        assert files[f"{seed:010d}.png"] == alone(workshop, checkpoint, seed)
    shown = row(workshop, job)
    assert (shown.status, shown.result and shown.result["pictures"], shown.parts) == ("succeeded", 21, [])


def test_an_attempt_goes_on_behind_what_the_one_before_it_stored(
    workshop: Workshop, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_thread = workshop.settings.model_copy(update={"threads": 1})  # so that what is drawn is drawn in order
    workshop = Workshop(one_thread, workshop.db, workshop.storage)
    job, whole = submit("0-30"), submit("0-30")
    draw(workshop, whole)
    held, stored = claim(workshop, job), []
    keep = saving.keep_part

    def keep_two(row: Job, sha256: str) -> None:
        if len(stored) == 2:
            raise Killed("kill -9")
        stored.append(sha256)
        keep(row, sha256)

    monkeypatch.setattr(saving, "keep_part", keep_two)
    with pytest.raises(Killed):
        bulk.draw(workshop, held)
    held.leave()
    assert row(workshop, job).parts == stored
    monkeypatch.setattr(saving, "keep_part", keep)
    with workshop.db.begin() as session:
        jobs.holder_died(session, job, held.epoch)
    drawn: list[int] = []
    original = BulkOrder.name
    monkeypatch.setattr(BulkOrder, "name", lambda self, seed: drawn.append(seed) or original(self, seed))
    draw(workshop, job)
    assert drawn == list(range(14, 31))  # two parts of seven were there
    first, second = (row(workshop, each).result for each in (job, whole))
    assert first and second and first["file"] == second["file"]


def test_a_part_that_is_gone_is_drawn_again(workshop: Workshop, submit: Submit) -> None:
    job, whole = submit("0-20"), submit("0-20")
    draw(workshop, whole)
    gone = "f" * 64
    with workshop.db.begin() as session:
        jobs.find(session, job).parts = [gone]
    draw(workshop, job)
    first, second = (row(workshop, each).result for each in (job, whole))
    assert first and second and first["file"] == second["file"]


def test_a_cancel_stops_it_between_two_passes(workshop: Workshop, submit: Submit) -> None:
    job = submit("0-9999")
    held = claim(workshop, job)
    with workshop.db.begin() as session:
        jobs.cancel(session, job)
    with pytest.raises(Stopped):
        bulk.draw(workshop, held)
    held.leave()
    assert list((workshop.storage.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(("output_format", "metadata"), [("webp", "full"), ("jpeg", "minimal")])
def test_files_are_of_the_kind_that_was_asked_for(
    workshop: Workshop, submit: Submit, output_format: str, metadata: str
) -> None:
    job = submit("0-2", output_format=output_format, metadata=metadata)
    draw(workshop, job)
    files = entries(workshop, job)
    assert ("recipe.json" in files) == (metadata == "full")
    recipe = read_recipe(files[f"{2:010d}.{output_format}"])
    assert (recipe is not None) == (metadata == "full")
    assert recipe is None or (isinstance(recipe, Recipe) and recipe.seed == 2)
