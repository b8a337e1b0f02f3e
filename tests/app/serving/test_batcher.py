import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Barrier, Event
from threading import enumerate as running_threads
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from app.core.errors import Busy, InvalidRequest, NotFound, Unavailable
from app.core.storage import Storage
from app.serving.batcher import FINISH_TOGETHER, Batcher
from app.serving.loader import Loader
from app.serving.recipe import Mix, Recipe

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60  # longer than any of this takes, so that a lost answer fails the test instead of hanging it


class Gate:
    """Keeps the threads that compute from starting until everything is in line."""

    def __init__(self) -> None:
        self.event = Event()

    def open(self) -> None:
        self.event.set()

    def wait(self) -> None:
        self.event.wait(SECONDS)


class RefusesToPaint(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        raise RuntimeError("out of memory")


@asynccontextmanager
async def batching(
    storage: Storage,
    gate: Gate | None = None,
    *,
    max_waiting: int = 1000,
    painters: int = 1,
    resolve: Callable[[str], Path] | None = None,
) -> AsyncIterator[Batcher]:
    loader = Loader(resolve or storage.path, device="cpu", budget_bytes=2**30, max_batch=8)
    prepare_thread = gate.wait if gate else lambda: None
    batcher = Batcher(loader, max_waiting=max_waiting, painters=painters, prepare_thread=prepare_thread)
    try:
        yield batcher
    finally:
        if gate:
            gate.open()
        await batcher.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, SECONDS))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def in_line(batcher: Batcher, *groups: list[Recipe], finish: Any = None) -> list[asyncio.Task[list[Any]]]:
    """One request a group, each in line, in this order, when this returns."""
    tasks = [
        asyncio.create_task(batcher.submit(group) if finish is None else batcher.submit(group, finish))
        for group in groups
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def test_requests_of_many_clients_share_passes_and_each_gets_its_own_picture(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
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
            assert batcher.stats.compute_seconds > 0

    run(work())


def test_a_lone_request_has_a_pass_of_its_own_at_once(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        async with batching(storage) as batcher:
            checkpoint = make_checkpoint()
            for seed in range(3):
                await batcher.submit([make_recipe(seed, checkpoint)])
                assert batcher.stats.batches == seed + 1

    run(work())


def test_pictures_come_in_the_order_of_their_recipes(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        async with batching(storage) as batcher:
            checkpoint = make_checkpoint()
            seeds = [int(seed) for seed in np.random.RandomState(0).permutation(3 * FINISH_TOGETHER)]
            recipes = [make_recipe(seed, checkpoint) for seed in seeds]
            answers = await batcher.submit(recipes, lambda recipe, pixels: (recipe.seed, pixels.shape))

            assert answers == [(seed, (32, 32, 3)) for seed in seeds]

    run(work())


def test_the_line_with_the_oldest_request_is_painted_first(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
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

            assert passes == ["busy 8", "busy 8", "quiet 2", "busy 8", "busy 4", "busy 2"]

    run(work())


def test_idle_painters_share_what_waits_and_paint_at_once(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        async with batching(storage, painters=2) as batcher:
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

    run(work())


def test_a_cancelled_request_is_dropped_before_its_pass(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
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

    run(work())


def test_when_all_have_left_nothing_is_painted_and_the_next_one_is(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
            left, asked = make_checkpoint(0), make_checkpoint(1)
            (leaving,) = await in_line(batcher, [make_recipe(0, left)])
            leaving.cancel()
            await asyncio.wait([leaving])
            gate.open()

            assert len(await batcher.submit([make_recipe(0, asked)])) == 1
            assert batcher.stats.pictures == 1

    run(work())


def test_an_error_in_a_pass_reaches_its_callers_and_the_next_pass_comes(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
            checkpoint = make_checkpoint()
            generator = batcher.loader.get(checkpoint).generator
            synthesis, generator.synthesis = generator.synthesis, RefusesToPaint()
            tasks = await in_line(batcher, *([make_recipe(seed, checkpoint)] for seed in range(5)))
            gate.open()
            for task in tasks:
                with pytest.raises(RuntimeError, match="out of memory"):
                    await task
            generator.synthesis = synthesis

            assert len(await batcher.submit([make_recipe(0, checkpoint)])) == 1
            assert batcher.stats.waiting == 0

    run(work())


def test_a_recipe_the_model_cannot_paint_spoils_nobody_elses_pass(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
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

    run(work())


def test_an_error_while_finishing_reaches_its_own_caller_alone(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    def finish(recipe: Recipe, pixels: Any) -> int:
        return 100 // recipe.seed

    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
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

    run(work())


def test_a_full_queue_says_when_to_come_back_and_takes_all_or_none(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate, max_waiting=10) as batcher:
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

    run(work())


def test_a_checkpoint_that_cannot_be_read_fails_its_own_callers_alone(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        async with batching(storage) as batcher:
            checkpoint = make_checkpoint()
            lost, also_lost, found = await in_line(
                batcher, [make_recipe(0, "0" * 64)], [make_recipe(1, "0" * 64)], [make_recipe(0, checkpoint)]
            )

            for task in (lost, also_lost):
                with pytest.raises(NotFound):
                    await task
            assert len(await found) == 1

    run(work())


def test_a_slow_checkpoint_keeps_no_other_model_waiting(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        slow, quick = make_checkpoint(0), make_checkpoint(1)
        gate = Gate()

        def resolve(sha256: str) -> Path:
            if sha256 == slow:
                gate.wait()
            return storage.path(sha256)

        async with batching(storage, resolve=resolve) as batcher:
            slowly, quickly = await in_line(batcher, [make_recipe(0, slow)], [make_recipe(0, quick)])

            assert len(await quickly) == 1
            assert not slowly.done()
            gate.open()
            assert len(await slowly) == 1

    run(work())


def test_closing_tells_those_who_wait_and_leaves_no_thread(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    async def work() -> None:
        gate = Gate()
        async with batching(storage, gate) as batcher:
            checkpoint = make_checkpoint()
            batcher.loader.get(checkpoint)
            (waiting,) = await in_line(batcher, [make_recipe(0, checkpoint)])
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await batcher.submit([make_recipe(0, checkpoint)])

    before = set(running_threads())
    run(work())
    assert set(running_threads()) <= before
