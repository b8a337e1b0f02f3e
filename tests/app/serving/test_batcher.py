"""Who is painted with whom, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from app.serving.batcher import FINISH_TOGETHER, Batcher
from app.serving.recipe import Recipe

Batching = Callable[..., AbstractAsyncContextManager[Batcher]]
InLine = Callable[..., Awaitable[list[asyncio.Task[list[Any]]]]]
Gate = Any  # keeps the threads that compute from starting until it is opened
MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60  # longer than any of this takes

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def test_requests_of_many_clients_share_passes_and_each_gets_its_own_picture(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        recipes = [make_recipe(seed, checkpoint) for seed in range(32)]
        expected = batcher.loader.get(checkpoint).render(recipes)
        tasks = await in_line(batcher, *([recipe] for recipe in recipes))
        gate.open()
        pictures = [(await task)[0] for task in tasks]

        assert np.array_equal(pictures, expected)
        assert batcher.stats.batches == 4
        assert batcher.stats.pictures == 32
        assert batcher.stats.waiting == 0


async def test_a_lone_request_has_a_pass_of_its_own_at_once(
    batching: Batching, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching() as batcher:
        checkpoint = make_checkpoint()
        for seed in range(3):
            await batcher.submit([make_recipe(seed, checkpoint)])
            assert batcher.stats.batches == seed + 1


async def test_pictures_come_in_the_order_of_their_recipes(
    batching: Batching, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching() as batcher:
        checkpoint = make_checkpoint()
        seeds = [int(seed) for seed in np.random.RandomState(0).permutation(3 * FINISH_TOGETHER)]
        recipes = [make_recipe(seed, checkpoint) for seed in seeds]
        answers = await batcher.submit(recipes, lambda recipe, pixels: (recipe.seed, pixels.shape))

        assert answers == [(seed, (32, 32, 3)) for seed in seeds]


async def test_models_take_turns_however_many_pictures_of_each_are_wanted(
    batching: Batching, in_line: InLine, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        busy, quiet = make_checkpoint(0), make_checkpoint(1)
        for checkpoint in (busy, quiet):
            batcher.loader.get(checkpoint)
        passes: list[str] = []
        render = {checkpoint: batcher.loader.get(checkpoint).render for checkpoint in (busy, quiet)}
        for checkpoint in (busy, quiet):

            def noting(recipes: Any, checkpoint: str = checkpoint) -> Any:
                passes.append(f"{'busy' if checkpoint == busy else 'quiet'} {len(recipes)}")
                return render[checkpoint](recipes)

            batcher.loader.get(checkpoint).render = noting  # type: ignore[method-assign]
        tasks = await in_line(
            batcher,
            [make_recipe(seed, busy) for seed in range(10)],
            [make_recipe(0, quiet)],
            [make_recipe(seed, busy) for seed in range(20)],
            [make_recipe(1, quiet)],
        )
        gate.open()
        await asyncio.gather(*tasks)

        assert passes == ["busy 8", "quiet 2", "busy 8", "busy 8", "busy 6"]


async def test_a_large_request_does_not_keep_another_caller_waiting(
    batching: Batching, gate: Gate, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(gate) as batcher:
        checkpoint = make_checkpoint()
        order: list[str] = []

        def note(recipe: Recipe, _pixels: Any) -> None:
            order.append("bert" if recipe.seed == 999 else "anna")

        many = [make_recipe(seed, checkpoint) for seed in range(64)]
        large = asyncio.create_task(batcher.submit(many, note, caller="anna"))
        await asyncio.sleep(0)
        small = asyncio.create_task(batcher.submit([make_recipe(999, checkpoint)], note, caller="bert"))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(large, small)

        assert order.index("bert") < 8  # in the first pass, where 64 were in line before
        assert len(order) == 65


async def test_those_who_ask_right_after_a_pass_are_waited_for_and_nobody_waits_for_long(
    batching: Batching, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batching() as batcher:
        checkpoint = make_checkpoint()
        await batcher.submit([make_recipe(seed, checkpoint) for seed in range(2)])
        monkeypatch.setattr("app.serving.batcher.TOP_UP_SECONDS", SECONDS)
        first = asyncio.create_task(batcher.submit([make_recipe(2, checkpoint)]))
        await asyncio.sleep(0.05)
        assert not first.done()
        await asyncio.gather(first, batcher.submit([make_recipe(3, checkpoint)]))
        assert batcher.stats.batches == 2

        monkeypatch.setattr("app.serving.batcher.TOP_UP_SECONDS", 0.002)
        await batcher.submit([make_recipe(4, checkpoint)])
        assert batcher.stats.batches == 3


async def test_idle_painters_share_what_waits_and_paint_at_once(
    batching: Batching, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async with batching(painters=2) as batcher:
        checkpoint = make_checkpoint()
        recipes = [make_recipe(seed, checkpoint) for seed in range(8)]
        loaded = batcher.loader.get(checkpoint)
        expected, render = loaded.render(recipes), loaded.render
        both = Barrier(2)

        def together(some: Sequence[Recipe]) -> Any:
            both.wait(SECONDS)  # breaks unless the other painter comes
            assert len(some) == 4
            return render(some)

        await until(lambda: batcher._idle == 2)
        loaded.render = together  # type: ignore[method-assign]
        pictures = await batcher.submit(recipes)

        assert np.array_equal(pictures, expected)
        assert batcher.stats.batches == 2
