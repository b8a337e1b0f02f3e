"""The engine paints what the service would, in order, and stops within a pass or two."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from app.serving.point import Point
from worker.rendering.engine import AHEAD, Engine, Stopped
from worker.tasks import Workshop


@pytest.fixture
def stop() -> list[bool]:
    """Something in it: stop."""
    return []


@pytest.fixture
def engine(workshop: Workshop, stop: list[bool]) -> Iterator[Engine]:
    with Engine(workshop.settings, workshop.storage, lambda: bool(stop)) as made:
        yield made


def test_pictures_come_in_order_as_they_would_alone(engine: Engine, checkpoints: list[str]) -> None:
    loaded = engine.load(checkpoints[0])
    numbers = [5, 3, 17, 0, 2, 9, 11, 40, 1, 4, 8, 6, 21, 7]
    shown = list(engine.pictures(loaded, numbers, lambda few: loaded.place([Point(seed=seed) for seed in few])))
    for number, picture in zip(numbers, shown, strict=True):
        assert np.array_equal(picture, loaded.render([Point(seed=number)])[0])


def test_work_is_done_by_several_threads_ahead_of_its_turn_but_not_far(engine: Engine) -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        time.sleep(0.01 if number else 0.05)
        return number

    results = engine.in_order(lambda number=number: work(number) for number in range(40))
    assert next(results) == 0
    assert 1 < len(begun) <= engine.threads * (AHEAD + 1) + 1
    assert list(results) == list(range(1, 40))


def test_it_stops_within_a_pass_or_two(engine: Engine, stop: list[bool]) -> None:
    done: list[int] = []
    results = engine.in_order(lambda number=number: done.append(number) for number in range(1000))
    next(results)
    stop.append(True)
    with pytest.raises(Stopped):
        next(results)
    assert len(done) <= engine.threads * (AHEAD + 1) + 1
    with pytest.raises(Stopped):
        engine.load("f" * 64)


def test_an_error_of_a_thread_is_the_callers(engine: Engine) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    works: list[Callable[[], None]] = [lambda: None, fail, lambda: None]
    with pytest.raises(ZeroDivisionError):
        list(engine.in_order(works))


def test_the_threads_of_torch_are_as_before_when_it_is_done(workshop: Workshop) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Engine(workshop.settings, workshop.storage, lambda: False) as engine:
            assert torch.get_num_threads() == 1
            assert engine.threads == workshop.settings.threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
