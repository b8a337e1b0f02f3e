"""Performances on a real painter: what is painted and made a file, for whom, and what is not."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from PIL import Image

from app.core.errors import Busy, GanvasError
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.encode import read_recipe
from app.serving.live import MAX_FPS, MAX_KINDS, Frame, Kind, Refusal, Stage, Viewer
from app.serving.recipe import Mix, Recipe
from app.serving.service import Asker, FileKind, Painter

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60  # longer than any of this takes, so that a frame that never comes fails the test instead of hanging it

pytestmark = pytest.mark.anyio


class Theatre:
    """A stage, and what its painter counts."""

    def __init__(self, painter: Painter, stage: Stage, open_: AsyncExitStack) -> None:
        self.painter = painter
        self.stage = stage
        self._open = open_

    async def join(self, name: str = "one", kind: Kind = Kind()) -> Viewer:  # noqa: B008 - it cannot be changed
        return await self._open.enter_async_context(self.stage.joined(name, kind))

    def counted(self, name: str) -> float:
        families = self.painter.meters.registry.collect()
        return sum(sample.value for family in families for sample in family.samples if sample.name == f"ganvas_{name}")

    @property
    def painted(self) -> float:
        return self.counted("pictures_painted_total")

    @property
    def encoded(self) -> float:
        return self.counted("encode_seconds_count")


@asynccontextmanager
async def theatre(storage: Storage, max_viewers: int = 40, **settings: Any) -> AsyncIterator[Theatre]:
    painter = Painter(Settings(**{"threads": 1, "max_batch": 2} | settings), storage)
    stage = Stage(painter, max_viewers)
    try:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as open_:
            yield Theatre(painter, stage, open_)
    finally:
        await stage.close()
        await painter.close()


async def frame_of(viewer: Viewer) -> Frame:
    news = await viewer.next()
    assert isinstance(news, Frame), news
    return news


async def refusal_of(viewer: Viewer) -> Refusal:
    news = await viewer.next()
    assert isinstance(news, Refusal), news
    return news


@pytest.fixture
def recipes(make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe) -> Callable[..., Recipe]:
    """Recipes of one checkpoint."""
    checkpoint = make_checkpoint()
    return lambda seed, **fields: make_recipe(seed, checkpoint, **fields)


async def test_of_all_that_was_said_the_newest_is_painted_and_nothing_else(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        viewer = await here.join()
        for seed in range(100):
            viewer.say(recipes(seed), {"seed": seed}, id_=seed)
        frame = await frame_of(viewer)
        assert (frame.recipe.seed, frame.id, frame.passes) == (99, 99, 1)
        assert here.painted == 1


async def test_what_is_said_during_a_pass_is_on_screen_with_the_next_one(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        viewer = await here.join()
        viewer.say(recipes(1), {}, id_="first")
        waiting = asyncio.create_task(frame_of(viewer))
        while not viewer.performance.begun:
            await asyncio.sleep(0)
        viewer.say(recipes(2), {}, id_="overtaken")
        viewer.say(recipes(3), {}, id_="second")
        first, second = await waiting, await frame_of(viewer)
        assert (first.recipe.seed, first.id, first.passes) == (1, "first", 1)
        assert (second.recipe.seed, second.id, second.passes) == (3, "second", 2)
        assert here.painted == 2


async def test_nothing_is_painted_that_nobody_can_take_and_nothing_twice(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        viewer = await here.join()
        viewer.say(recipes(1), {})
        for _ in range(20):
            await asyncio.sleep(0)
        assert here.painter.waiting() == here.painted == 0

        first = await frame_of(viewer)
        viewer.say(recipes(1), {}, id_=5)
        again = await frame_of(viewer)
        assert (again.file, again.id, again.passes) == (first.file, 5, 0)
        assert here.painted == here.encoded == 1


async def test_an_id_is_answered_though_messages_never_stop(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage) as here:
        viewer = await here.join()

        async def flood() -> None:
            seed = 0
            while True:
                seed += 1
                viewer.say(recipes(seed), {}, id_="asked" if seed == 50 else None)
                await asyncio.sleep(0)

        flooding = asyncio.create_task(flood())
        try:
            ids = [(await frame_of(viewer)).id for _ in range(8)]
        finally:
            flooding.cancel()
        assert ids.count("asked") == 1


async def test_all_who_watch_share_the_pass_and_those_of_one_kind_the_file(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    large = Kind((96, 64), FileKind("jpeg", 80, "full"))
    async with theatre(storage) as here:
        performer = await here.join()
        watching = [await here.join() for _ in range(10)] + [await here.join(kind=large) for _ in range(10)]
        tasks = [asyncio.create_task(frame_of(viewer)) for viewer in [performer, *watching]]
        performer.say(recipes(7), {})
        files = [(await task).file for task in tasks]

        assert (here.painted, here.encoded) == (1, 2)
        assert here.counted("live_frames_total") == 21
        assert len(set(files[:11])) == len(set(files[11:])) == 1
        small, big = (Image.open(io.BytesIO(file)) for file in (files[0], files[-1]))
        assert (small.format, small.size) == ("WEBP", (32, 32))
        assert (big.format, big.size) == ("JPEG", (96, 64))
        assert read_recipe(files[0]) is None
        assert read_recipe(files[-1]) == recipes(7, size=(96, 64))


async def test_who_is_slow_misses_frames_and_keeps_nobody_waiting(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        performer, slow = await here.join(), await here.join(kind=Kind((64, 64)))
        for seed in range(20):
            performer.say(recipes(seed), {})
            assert (await frame_of(performer)).recipe.seed == seed
        assert here.encoded == 20  # and none for the other
        assert (await frame_of(slow)).recipe == recipes(19, size=(64, 64))
        assert here.painted == 20


async def test_who_comes_late_or_wants_another_file_gets_what_is_on_screen(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        performer = await here.join()
        performer.say(recipes(3), {})
        first = await frame_of(performer)
        assert (await frame_of(await here.join())).file == first.file
        performer.want(Kind((16, 16), FileKind("png")))
        assert Image.open(io.BytesIO((await frame_of(performer)).file)).size == (16, 16)
        assert (here.painted, here.encoded) == (1, 2)


async def test_what_cannot_be_painted_is_told_to_who_said_it_and_forgotten(
    storage: Storage, recipes: Callable[..., Recipe]
) -> None:
    async with theatre(storage) as here:
        performer, watcher = await here.join(), await here.join()
        performer.say(recipes(1), {"seed": 1})
        await frame_of(performer)
        await frame_of(watcher)
        seen = asyncio.create_task(frame_of(watcher))
        performer.say(recipes(2, mix=Mix(seed=1, layers=(63,))), {"seed": 2, "mix": "of too many layers"}, id_=9)
        refusal = await refusal_of(performer)
        assert (refusal.error.param, refusal.id) == ("mix", 9)
        assert performer.performance.said == {"seed": 1}

        performer.say(recipes(4), {"seed": 4})
        assert (await frame_of(performer)).recipe.seed == (await seen).recipe.seed == 4


async def test_an_exception_in_a_pass_ends_no_performance(
    storage: Storage, recipes: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with theatre(storage) as here:
        performer = await here.join()
        with monkeypatch.context() as patched:
            patched.setattr("app.serving.paint.LoadedGenerator.render", lambda *_: 1 / 0)
            performer.say(recipes(1), {})
            assert (await refusal_of(performer)).error.error_code == "internal_error"
        performer.say(recipes(2), {})
        assert (await frame_of(performer)).recipe.seed == 2


async def test_a_file_that_cannot_be_made_is_told_and_the_next_one_comes(
    storage: Storage, recipes: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with theatre(storage) as here:
        performer = await here.join()
        with monkeypatch.context() as patched:
            patched.setattr(here.painter, "encode", lambda *_: 1 / 0)
            performer.say(recipes(1), {}, id_=1)
            assert (await refusal_of(performer)).id == 1
        performer.say(recipes(2), {})
        assert (await frame_of(performer)).recipe.seed == 2


async def test_a_performance_that_finds_no_room_asks_again(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage, max_waiting_pictures=8, max_batch=1) as here:
        stills = asyncio.create_task(here.painter.pixels([recipes(seed) for seed in range(8)]))
        await asyncio.sleep(0)
        performer = await here.join()
        performer.say(recipes(20), {}, id_=1)
        frame = await frame_of(performer)
        assert (frame.recipe.seed, frame.id, frame.passes) == (20, 1, 1)
        assert here.counted("pictures_refused_total") > 0
        await stills


async def test_stills_and_live_take_turns(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage, max_batch=4) as here:
        stills = asyncio.create_task(here.painter.pixels([recipes(seed) for seed in range(400)], Asker("many")))
        performer = await here.join()
        for seed in range(1000, 1003):
            performer.say(recipes(seed), {})
            await frame_of(performer)
        assert here.painter.waiting() > 0  # of the stills, which came first
        await stills


async def test_no_viewer_gets_more_frames_than_screens_show(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage) as here:
        performer = await here.join()
        began = monotonic()
        for seed in range(13):
            performer.say(recipes(seed), {})
            await frame_of(performer)
        assert monotonic() - began > 12 / MAX_FPS * 0.95


async def test_there_is_an_end_to_viewers_and_to_kinds_of_file(storage: Storage) -> None:
    async with theatre(storage, max_viewers=MAX_KINDS + 1) as here:
        viewers = [await here.join(kind=Kind((size, size))) for size in range(1, MAX_KINDS + 1)]
        with pytest.raises(Busy) as too_many:
            await here.join(kind=Kind((500, 500)))
        assert too_many.value.error_code == "live_full"
        with pytest.raises(Busy):
            viewers.append(await here.join(kind=Kind((1, 1))))
            viewers[0].want(Kind((500, 500)))
        viewers[1].want(Kind((500, 500)))  # in place of one that nobody else has
        with pytest.raises(Busy) as full:
            await here.join("two")
        assert "9 live connections" in full.value.message


async def test_a_performance_ends_with_its_last_viewer(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage) as here:
        async with here.stage.joined("one") as first, here.stage.joined("one") as second:
            assert first.performance is second.performance
            assert (here.counted("live_performances"), here.counted("live_viewers")) == (1, 2)
            first.say(recipes(1), {"seed": 1})
            await frame_of(first)
            first.say(recipes(2), {"seed": 2})
            waiting = asyncio.create_task(first.next())  # a pass is under way when they leave
            while first.performance.begun < 2:
                await asyncio.sleep(0)
        waiting.cancel()
        assert (here.counted("live_performances"), here.counted("live_viewers")) == (0, 0)
        assert here.painter.waiting() == 0
        async with here.stage.joined("one") as anew:
            assert anew.performance.said == {}


async def test_refusals_go_first_and_the_oldest_are_forgotten(storage: Storage, recipes: Callable[..., Recipe]) -> None:
    async with theatre(storage) as here:
        performer = await here.join()
        performer.say(recipes(1), {})
        for number in range(20):
            performer.refuse(GanvasError("No."), number)
        assert [(await refusal_of(performer)).id for _ in range(16)] == list(range(4, 20))
        assert (await frame_of(performer)).recipe.seed == 1
