"""What becomes of those who leave, come too late, or meet an error: nobody else notices."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from threading import enumerate as running_threads
from typing import Any

import numpy as np
import pytest

from app.core.errors import Busy, InvalidRequest, NotFound, Unavailable
from app.core.storage import Storage
from app.serving.batcher import Batcher
from app.serving.recipe import Mix, Recipe

Batching = Callable[..., AbstractAsyncContextManager[Batcher]]
InLine = Callable[..., Awaitable[list[asyncio.Task[list[Any]]]]]
Gate = Any  # keeps the threads that compute from starting until it is opened
MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60  # longer than any of this takes

pytestmark = pytest.mark.anyio


async def test_a_picture_whose_turn_comes_too_late_is_refused_and_not_painted(
    batching: Batching, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        patient = asyncio.create_task(batcher.submit([make_recipe(0, checkpoint)]))
        with pytest.raises(Unavailable, match=r"within 0.01 s") as late:
            await batcher.submit([make_recipe(seed, checkpoint) for seed in range(1, 4)], timeout=0.01)
        assert late.value.error_code == "deadline_exceeded"
        gate.open()

        assert len(await patient) == 1
        assert batcher.stats.pictures == 1


async def test_a_storm_of_cancellations_leaves_nothing_behind_and_answers_everybody_else(
    batching: Batching, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(painters=2) as batcher:
        checkpoint = make_checkpoint()
        moments = np.random.RandomState(0)
        asked = [asyncio.create_task(batcher.submit([make_recipe(seed, checkpoint)])) for seed in range(300)]
        for leaving in moments.permutation(300)[:200]:
            asked[leaving].cancel()
            await asyncio.sleep(moments.exponential(0.0005))
        answers = await asyncio.gather(*asked, return_exceptions=True)

        # A cancelled one may have been painted just before.
        assert sum(isinstance(answer, list) for answer in answers) >= 100
        assert all(isinstance(answer, list | asyncio.CancelledError) for answer in answers)
        assert batcher.stats.waiting == 0
        assert len(await batcher.submit([make_recipe(0, checkpoint)])) == 1


async def test_a_cancelled_request_is_dropped_before_its_pass(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        leaving, staying = await in_line(
            batcher,
            [make_recipe(seed, checkpoint) for seed in range(20)],
            [make_recipe(seed, checkpoint) for seed in range(3)],
        )
        leaving.cancel()
        await asyncio.wait([leaving])
        assert batcher.stats.waiting == 3
        gate.open()

        assert len(await staying) == 3
        assert batcher.stats.pictures == 3


async def test_when_all_have_left_nothing_is_painted_and_the_next_one_is(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        left, asked = make_checkpoint(0), make_checkpoint(1)
        (leaving,) = await in_line(batcher, [make_recipe(0, left)])
        leaving.cancel()
        await asyncio.wait([leaving])
        gate.open()

        assert len(await batcher.submit([make_recipe(0, asked)])) == 1
        assert batcher.stats.pictures == 1


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, StopIteration])
@pytest.mark.parametrize("where", ["check", "render"])
async def test_an_error_in_a_pass_reaches_its_callers_and_the_next_pass_comes(
    batching: Batching,
    in_line: InLine,
    gate: Gate,
    make_checkpoint: MakeCheckpoint,
    make_recipe: MakeRecipe,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    where: str,
) -> None:
    def fail(_asked: Any) -> None:
        raise error

    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        monkeypatch.setattr(batcher.loader.get(checkpoint), where, fail)
        tasks = await in_line(batcher, *([make_recipe(seed, checkpoint)] for seed in range(5)))
        gate.open()
        for task in tasks:
            with pytest.raises((RuntimeError, MemoryError)):
                await task
        monkeypatch.undo()

        assert len(await batcher.submit([make_recipe(0, checkpoint)])) == 1
        assert batcher.stats.waiting == 0


async def test_a_recipe_the_model_cannot_paint_spoils_nobody_elses_pass(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        good, bad, also_good = await in_line(
            batcher,
            [make_recipe(0, checkpoint)],
            [make_recipe(1, checkpoint, mix=Mix(seed=0, layers=(63,)))],
            [make_recipe(2, checkpoint)],
        )
        gate.open()

        with pytest.raises(InvalidRequest, match="layer 63"):
            await bad
        assert len(await good) == len(await also_good) == 1


async def test_an_error_while_finishing_reaches_its_own_caller_alone(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    def finish(recipe: Recipe, pixels: Any) -> int:
        return 100 // recipe.seed

    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        tasks = await in_line(batcher, *([make_recipe(seed, checkpoint)] for seed in range(3)), finish=finish)
        gate.open()

        with pytest.raises(ZeroDivisionError):
            await tasks[0]
        assert [await task for task in tasks[1:]] == [[100], [50]]
        # Both fail here and one is heard: the other must not turn up later as an error nobody fetched.
        with pytest.raises(ZeroDivisionError):
            await batcher.submit([make_recipe(0, checkpoint), make_recipe(0, checkpoint)], finish)
        gc.collect()


async def test_a_full_queue_says_when_to_come_back_and_takes_all_or_none(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate, max_waiting=10) as batcher:
        checkpoint = make_checkpoint()
        recipes = [make_recipe(seed, checkpoint) for seed in range(4)]
        first, second = await in_line(batcher, recipes, recipes)

        with pytest.raises(Busy, match="8 pictures are waiting") as busy:
            await batcher.submit(recipes)
        assert busy.value.retry_after > 0
        assert batcher.stats.refused == 4
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(batcher.submit(recipes))
        await asyncio.sleep(0)
        gate.open()

        assert len(await first) == len(await third) == 4
        assert batcher.stats.waiting == 0


async def test_a_checkpoint_that_cannot_be_read_fails_its_own_callers_alone(
    batching: Batching, in_line: InLine, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching() as batcher:
        checkpoint = make_checkpoint()
        lost, also_lost, found = await in_line(
            batcher, [make_recipe(0, "0" * 64)], [make_recipe(1, "0" * 64)], [make_recipe(0, checkpoint)]
        )

        for task in (lost, also_lost):
            with pytest.raises(NotFound):
                await task
        assert len(await found) == 1


async def test_a_slow_checkpoint_keeps_no_other_model_waiting(
    storage: Storage,
    batching: Batching,
    in_line: InLine,
    gate: Gate,
    make_checkpoint: MakeCheckpoint,
    make_recipe: MakeRecipe,
) -> None:
    slow, quick = make_checkpoint(0), make_checkpoint(1)

    def resolve(sha256: str) -> Path:
        if sha256 == slow:
            gate.wait()
        return storage.path(sha256)

    async with batching(resolve=resolve) as batcher:
        slowly, quickly = await in_line(batcher, [make_recipe(0, slow)], [make_recipe(0, quick)])

        assert len(await quickly) == 1
        assert not slowly.done()
        gate.open()
        assert len(await slowly) == 1


async def test_closing_tells_those_who_wait_and_leaves_no_thread(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    before = set(running_threads())
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        batcher.loader.get(checkpoint)
        (waiting,) = await in_line(batcher, [make_recipe(0, checkpoint)])
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await batcher.submit([make_recipe(0, checkpoint)])
    assert {thread for thread in running_threads() if thread.name.startswith(("paint", "load", "finish"))} <= before
