"""A film is what its recipe says in every container: as long, as fast, as large; and a loop closes."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from app.core import jobs
from app.core.errors import NotFound
from app.core.records import Checkpoint, Job
from app.serving.encode import XMP, Pixels
from app.serving.film import FilmOrder, FilmRecipe, read_canonical
from app.serving.films.containers import MEDIA_TYPES, FilmFormat
from app.serving.films.finding import read_recipe_text
from app.serving.films.reading import decoded_frames, facts
from app.serving.frames import frame_ws, frames
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator
from app.serving.point import Point
from worker.rendering import films, progress
from worker.rendering.engine import Engine, Stopped
from worker.rendering.films import Drawing
from worker.rendering.progress import Progress
from worker.rendering.reel import Reel, Steps, coded_frames, difference
from worker.tasks import Workshop

Draw = Callable[..., Job]

FRAMES, FPS = 24, 12
LOOPS: dict[str, dict[str, Any]] = {
    "slerp": {"path": "slerp", "space": "z", "easing": "in_out_sine"},
    "slerp at one speed": {"path": "slerp", "space": "z", "easing": "linear"},
    "linear in z": {"path": "linear", "space": "z", "easing": "linear"},
    "linear in w": {"path": "linear", "space": "w", "easing": "linear"},
    "spline": {"path": "spline", "space": "w", "easing": "linear"},
    "noise": {"path": "noise", "space": "z", "radius": 0.5, "keyframes": (Point(seed=1),)},
    "noise that moves little": {"path": "noise", "space": "z", "radius": 0.15, "keyframes": (Point(seed=2),)},
}
KEPT = [*((name, False) for name in MEDIA_TYPES), ("mp4", True), ("webm", True), ("webp", True)]


@pytest.fixture(scope="module")
def order(checkpoints: list[str]) -> Callable[..., FilmOrder]:
    def make(way: str = "slerp", film_format: str = "webp", **changes: Any) -> FilmOrder:
        fields = {"kind": "loop", "model": "tiny", "checkpoint": checkpoints[-1], "frames": FRAMES, "fps": FPS}
        fields |= {"keyframes": (Point(seed=1), Point(seed=2), Point(seed=3)), "size": (32, 32)}
        told = {"choose_phase": True, "lossless": False, "metadata": "full", "keep": False}
        told |= {name: changes.pop(name) for name in list(changes) if name in told}
        film = FilmRecipe(**fields | (LOOPS[way] if way else {}) | changes)
        return FilmOrder(kind=film.kind, film=film, format=film_format, **told)

    return make


def file_of(workshop: Workshop, job: Job) -> Path:
    assert job.status == "succeeded"
    assert job.result is not None
    return workshop.storage.path(job.result["file"])


@pytest.fixture(scope="module")
def recorded(workshop: Workshop, order: Callable[..., FilmOrder]) -> Iterator[Callable[[str], Drawing]]:
    """Loops that are painted, and wait to be written; each is painted once."""
    known: dict[str, Drawing] = {}
    with workshop.db.begin() as session:
        job = jobs.submit(session, "render", {"kind": "loop"}).id
    claim = jobs.claim(workshop.db, job, threading.Event())
    assert claim is not None
    with ExitStack() as stack:
        folder = stack.enter_context(workshop.storage.scratch())
        folder.mkdir()
        engine = stack.enter_context(Engine(workshop.settings, workshop.storage, claim.should_stop))

        def record(way: str) -> Drawing:
            if way not in known:
                drawing = Drawing(engine, Progress(workshop.storage, claim, 2 * FRAMES), order(way).film, FRAMES)
                drawing.record(stack.enter_context(Reel(folder / way)), choose_phase=True)
                known[way] = drawing
            return copy(known[way])

        yield record
    claim.leave()


@pytest.mark.parametrize(("film_format", "lossless"), KEPT)
@pytest.mark.parametrize("way", LOOPS)
def test_a_loop_closes_in_every_container(
    way: str, film_format: FilmFormat, lossless: bool, order: Any, recorded: Callable[[str], Drawing], tmp_path: Path
) -> None:
    drawing, place = recorded(way), tmp_path / "film"
    drawing.write(place, order(way, film_format, lossless=lossless))
    shown = list(decoded_frames(place) if film_format == "zip" else coded_frames(place, film_format))
    assert len(shown) == FRAMES
    steps = [difference(one, other) for one, other in pairwise(shown)]
    assert difference(shown[-1], shown[0]) <= np.median(steps)
    assert np.median(steps) > 0.1  # levels: it does move


@pytest.mark.parametrize("film_format", ["mp4", "webm", "webp", "gif"])
def test_a_loop_that_its_container_opens_again_is_written_once_more(
    film_format: FilmFormat, order: Any, recorded: Callable[[str], Drawing], tmp_path: Path, monkeypatch: Any
) -> None:
    usual = recorded("spline").write(tmp_path / "usual", order("spline", film_format))
    opened = [np.full((2, 2, 3), 10 * min(number, 5) + max(0, number - 6), np.uint8) for number in range(FRAMES)]
    monkeypatch.setattr(films, "coded_frames", lambda *_: iter(opened))  # from 67 back to 0, and still at 6
    closed = recorded("spline").write(tmp_path / "closed", order("spline", film_format))
    if film_format in {"mp4", "webm"}:
        assert closed.recipe == usual.recipe
        assert (tmp_path / "closed").stat().st_size > (tmp_path / "usual").stat().st_size
    else:
        assert closed.recipe.phase == (usual.recipe.phase + 6) % FRAMES
        given = recorded("spline").write(tmp_path / "given", order("spline", film_format, choose_phase=False))
        assert given.recipe == usual.recipe


@pytest.mark.parametrize("film_format", MEDIA_TYPES)
def test_frames_rate_and_size_are_those_asked_for(film_format: str, workshop: Workshop, order: Any, draw: Draw) -> None:
    job = draw(order("", film_format, kind="walk", path="linear", space="z", easing="linear", size=(64, 48)))
    found = facts(file_of(workshop, job))
    assert (found.frames, found.size) == (FRAMES, (64, 48))
    assert found.fps is None or found.fps == pytest.approx(FPS, rel=0.01)
    result = job.result or {}
    assert (result["frames"], result["fps"], result["size"]) == (FRAMES, FPS, "64x48")
    assert (result["format"], result["media_type"]) == (film_format, MEDIA_TYPES[film_format])  # type: ignore[index]
    assert result["bytes"] == file_of(workshop, job).stat().st_size
    assert result["url"] == f"/v1/renders/{job.id}/file"


def test_a_loop_starts_where_it_moves_least_and_its_recipe_says_where(
    workshop: Workshop, order: Any, draw: Draw
) -> None:
    wanted = order("slerp at one speed", "zip")
    job = draw(wanted)
    film = FilmRecipe.model_validate((job.result or {})["recipe"])
    text = read_recipe_text(file_of(workshop, job).read_bytes())
    assert text is not None
    assert read_canonical(text) == film
    assert (film.device, film.dtype) == ("cpu", film.dtype)
    assert film.dtype is not None

    def paint(loaded: LoadedGenerator, numbers: Any, place: Any) -> Iterator[Pixels]:
        yield from loaded.render_w(place(numbers))

    loader = Loader(workshop.storage.path, device="cpu", dtype=film.dtype, budget_bytes=2**30, max_batch=8)
    whole = list(frames(wanted.film, loader.get, paint, range(FRAMES)))
    steps = [difference(whole[index - 1], picture) for index, picture in enumerate(whole)]
    assert film.phase == int(np.argmin(steps))
    shown = list(decoded_frames(file_of(workshop, job)))
    rotated = whole[film.phase :] + whole[: film.phase]
    assert all(np.array_equal(one, other) for one, other in zip(shown, rotated, strict=True))
    (alone,) = loader.get(film.checkpoint).render_w(frame_ws(loader.get(film.checkpoint), film, [5]))
    assert np.array_equal(alone, shown[5])
    loader.close()


@pytest.mark.parametrize("film_format", ["mp4", "gif"])
def test_the_same_order_and_the_recipe_found_give_the_same_bytes(
    film_format: str, workshop: Workshop, order: Any, draw: Draw
) -> None:
    wanted = order("noise", film_format)
    first, again = (draw(wanted) for _ in range(2))
    assert first.id != again.id
    assert first.result is not None
    assert again.result is not None
    assert first.result["file"] == again.result["file"]
    found = FilmRecipe.model_validate(first.result["recipe"])
    redrawn = draw(wanted.model_copy(update={"film": found, "choose_phase": False}))
    assert redrawn.result is not None
    assert redrawn.result["file"] == first.result["file"]


def test_a_file_with_minimal_metadata_holds_the_mark_alone(workshop: Workshop, order: Any, draw: Draw) -> None:
    job = draw(order("slerp", "webp", metadata="minimal"))
    data = file_of(workshop, job).read_bytes()
    assert read_recipe_text(data) is None
    assert XMP in data


def test_a_growth_leads_from_the_first_checkpoint_to_the_last(
    workshop: Workshop, order: Any, draw: Draw, checkpoints: list[str]
) -> None:
    growth = {"kind": "growth", "checkpoints": checkpoints, "columns": 2, "easing": "linear", "choose_phase": False}
    job = draw(order("", "zip", keyframes=(Point(seed=1), Point(seed=2), Point(seed=3)), **growth))
    shown = list(decoded_frames(file_of(workshop, job)))
    assert {frame.shape for frame in shown} == {(2 * 34 + 2, 2 * 34 + 2, 3)}
    steps = [difference(frame, shown[0]) for frame in shown]
    assert steps == sorted(steps)  # ever further from the first
    assert (shown[0][-30:, -30:] == 255).all()  # where a fourth picture would be


def test_what_is_drawn_can_be_watched(
    workshop: Workshop, order: Any, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TELLING_SECONDS", 0.0)
    before = blobs(workshop)
    job = draw(order("slerp", "gif", size=(320, 320)))
    with workshop.db.read() as session:
        ticks = [event.data for event in jobs.events_after(session, job.id, 0) if event.type == "tick"]
    assert len(ticks) == 2 * FRAMES  # painted, and written
    assert [tick["done"] for tick in ticks] == list(range(1, 2 * FRAMES + 1))
    assert job.preview_sha256 is not None
    with Image.open(io.BytesIO(workshop.storage.get(job.preview_sha256))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (256, 256))
    left = blobs(workshop) - before
    assert left == {job.preview_sha256, (job.result or {})["file"]}  # all other previews are gone


def test_a_film_that_is_canceled_at_any_time_leaves_nothing_behind(workshop: Workshop, order: Any) -> None:
    asked = draw_until(workshop, order("spline", "gif"), None)
    assert asked > 4 * FRAMES  # of each frame when it is painted, put in, completed, and compared
    before, places = blobs(workshop), len(list((workshop.storage.root / "tmp").iterdir()))
    for moment in (1, FRAMES // 2, FRAMES + 20, asked - FRAMES - 10, asked - 3):
        assert draw_until(workshop, order("spline", "gif"), moment) == moment
        with workshop.db.read() as session:
            previews = set(session.scalars(select(Job.preview_sha256)))
        assert blobs(workshop) - before <= previews
        assert len(list((workshop.storage.root / "tmp").iterdir())) == places


def draw_until(workshop: Workshop, wanted: FilmOrder, moment: int | None) -> int:
    """Draw, and ask for a stop when the drawing looks for the so many-th time whether it shall; how often it looked."""
    with workshop.db.begin() as session:
        job = jobs.submit(session, "render", wanted.model_dump(mode="json")).id
    claim = jobs.claim(workshop.db, job, threading.Event())
    assert claim is not None
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked == moment

    claim.should_stop = should_stop  # type: ignore[method-assign]
    try:
        films.draw(workshop, claim)
        assert moment is None
    except Stopped:
        assert moment is not None
    finally:
        claim.leave()
    return asked


def test_a_film_whose_weights_were_deleted_says_so(workshop: Workshop, order: Any, draw: Draw) -> None:
    with workshop.db.read() as session:
        assert session.get(Checkpoint, ("tiny", "f" * 64)) is None
    with pytest.raises(NotFound, match="ffffffffffff of 'tiny' were deleted"):
        draw(order("slerp", "webp", checkpoint="f" * 64))


@pytest.mark.parametrize(
    ("levels", "quietest", "closes"),
    [((0, 10, 20, 21, 30, 40), 3, False), ((0, 9, 18, 9), 0, True), ((0, 9, 18, 10), 3, False), ((7,), 0, True)],
)
def test_steps_find_the_quietest_frame_and_whether_a_loop_closes(
    levels: tuple[int, ...], quietest: int, closes: bool
) -> None:
    steps = Steps()
    for level in levels:
        steps.add(np.full((2, 2, 3), level, dtype=np.uint8))
    assert steps.quietest() == quietest
    assert steps.closes() is closes


def test_coded_frames_are_what_others_decode(workshop: Workshop, order: Any, draw: Draw) -> None:
    formats: list[FilmFormat] = ["mp4", "gif"]
    for film_format in formats:
        file = file_of(workshop, draw(order("slerp", film_format)))
        for one, other in zip(coded_frames(file, film_format), decoded_frames(file), strict=True):
            assert difference(one, other) < 3  # levels: of colours at half the size, which others enlarge otherwise


def blobs(workshop: Workshop) -> set[str]:
    return {file.name for file in (workshop.storage.root / "sha256").rglob("*") if file.is_file()}
