"""Films are painted again in turns with pictures: the same bits, from another thread, for as long as it is wanted."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from app.core.errors import Busy, InvalidRequest, Unavailable
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.encode import Pixels
from app.serving.film import FilmRecipe
from app.serving.frames import Place, frames
from app.serving.paint import LoadedGenerator
from app.serving.recipe import Recipe
from app.serving.repaint import Repainter
from app.serving.service import MAX_REPAINTS, Asker, Painter

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def painting(storage: Storage) -> AsyncIterator[Painter]:
    painter = Painter(Settings(threads=2, max_batch=8, dtype="float32"), storage)
    try:
        async with asyncio.timeout(SECONDS):
            yield painter
    finally:
        await painter.close()


def loop(checkpoint: str, **fields: Any) -> FilmRecipe:
    said = {"kind": "loop", "path": "noise", "space": "z", "radius": 1.5, "frames": 40, "fps": 24, "size": (32, 32)}
    said |= {"model": "emoji", "checkpoint": checkpoint, "keyframes": [{"seed": 1}], "dtype": "float32"}
    return FilmRecipe.model_validate(said | fields)


def one_by_one(loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
    for number in numbers:
        yield loaded.render_w(place([number]))[0]


async def test_frames_are_those_that_one_pass_each_would_paint(
    storage: Storage, make_checkpoint: MakeCheckpoint
) -> None:
    film = loop(make_checkpoint())
    async with painting(storage) as painter:
        repainted = await painter.repaint(lambda repainter: list(repainter.frames(film)))
        loader = painter._batchers[0].loader
        alone = list(frames(film, loader.get, one_by_one, range(film.frames)))
    assert np.array_equal(repainted, alone)
    assert len({picture.tobytes() for picture in repainted}) == film.frames


async def test_pictures_asked_for_meanwhile_share_its_passes_and_stay_as_they_are(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    film = loop(make_checkpoint(), frames=64)
    recipes = [make_recipe(seed, film.checkpoint, dtype="float32") for seed in range(48)]
    async with painting(storage) as painter:
        alone = await painter.pixels(recipes)
        quiet = await painter.repaint(lambda repainter: list(repainter.frames(film)))
        again, busy = await asyncio.gather(
            painter.pixels(recipes, Asker("someone")),
            painter.repaint(lambda repainter: list(repainter.frames(film))),
        )
    assert np.array_equal(alone, again)
    assert np.array_equal(quiet, busy)


async def test_pictures_come_in_the_order_of_their_recipes_at_their_size(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    checkpoint = make_checkpoint()
    recipes = [make_recipe(seed, checkpoint, size=(16, 8), dtype="float32") for seed in range(40)]
    async with painting(storage) as painter:
        repainted = await painter.repaint(lambda repainter: list(repainter.pictures(recipes)))
        expected = await painter.pixels(recipes)
    assert {picture.shape for picture in repainted} == {(8, 16, 3)}
    assert np.array_equal(repainted, [picture[2::4, 1::2] for picture in expected])


async def test_a_point_that_these_weights_cannot_paint_is_refused(
    storage: Storage, make_checkpoint: MakeCheckpoint
) -> None:
    keyframes = [{"seed": 1, "mix": {"seed": 2, "layers": [60]}}, {"seed": 3}]
    film = loop(make_checkpoint(), path="linear", space="w", radius=None, easing="linear", keyframes=keyframes)
    async with painting(storage) as painter:
        with pytest.raises(InvalidRequest, match="layer 60"):
            await painter.repaint(lambda repainter: list(repainter.frames(film)))
        assert painter.waiting() == 0


async def test_who_leaves_stops_the_work(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    film = loop(make_checkpoint(), frames=7200)
    begun, ended, painted = threading.Event(), threading.Event(), []

    def work(repainter: Repainter) -> None:
        try:
            for frame in repainter.frames(film):
                painted.append(frame.shape)
                begun.set()
        finally:
            ended.set()

    async with painting(storage) as painter:
        task = asyncio.create_task(painter.repaint(work))
        await asyncio.to_thread(begun.wait, SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, SECONDS)
        assert len(painted) < film.frames
        assert await painter.repaint(lambda _: "the next") == "the next"


async def test_few_wait_and_the_next_is_told_to_come_back(storage: Storage) -> None:
    gate = threading.Event()
    async with painting(storage) as painter:
        tasks = [asyncio.create_task(painter.repaint(lambda _: gate.wait(SECONDS))) for _ in range(MAX_REPAINTS)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match=f"at most {MAX_REPAINTS}"):
            await painter.repaint(lambda _: None)
        gate.set()
        assert await asyncio.gather(*tasks) == [True] * MAX_REPAINTS
        assert await painter.repaint(lambda _: 1) == 1


async def test_what_runs_when_the_service_stops_is_told_so(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    film = loop(make_checkpoint(), frames=7200)
    begun = threading.Event()

    def work(repainter: Repainter) -> None:
        for _ in repainter.frames(film):
            begun.set()

    async with painting(storage) as painter:
        task = asyncio.create_task(painter.repaint(work))
        await asyncio.to_thread(begun.wait, SECONDS)
    with pytest.raises(Unavailable):
        await task
