import asyncio
from collections.abc import Callable
from time import perf_counter

import pytest

from app.serving.line import Line, Ticket
from app.serving.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
Ask = Callable[..., list[Ticket]]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def ask(line: Line, make_recipe: MakeRecipe) -> Ask:
    def ask(caller: str, seeds: range) -> list[Ticket]:
        future = asyncio.get_running_loop().create_future
        tickets = [Ticket(make_recipe(seed), lambda _, x: x, future(), caller, perf_counter()) for seed in seeds]
        for ticket in tickets:
            line.add(ticket)
        return tickets

    return ask


def seeds(tickets: list[Ticket]) -> list[int]:
    return [ticket.recipe.seed for ticket in tickets]


pytestmark = pytest.mark.anyio


async def test_one_caller_is_served_in_the_order_it_asked_in(line: Line, ask: Ask) -> None:
    ask("anna", range(5))

    assert seeds(line.take(3)) == [0, 1, 2]
    ask("anna", range(5, 6))
    assert seeds(line.take(9)) == [3, 4, 5]
    assert line.take(1) == []
    assert len(line) == 0


async def test_callers_take_turns_however_many_pictures_each_asked_for(line: Line, ask: Ask) -> None:
    ask("anna", range(64))
    ask("bert", range(100, 102))
    ask("cleo", range(200, 201))

    assert seeds(line.take(4)) == [0, 100, 200, 1]
    assert seeds(line.take(3)) == [101, 2, 3]
    ask("bert", range(102, 103))
    assert seeds(line.take(2)) == [4, 102]
    assert len(line) == 64 - 5


async def test_whoever_left_or_was_answered_is_forgotten_and_only_those_who_left_are_counted(
    line: Line, ask: Ask
) -> None:
    anna, bert = ask("anna", range(4)), ask("bert", range(100, 102))
    assert line.drop_answered() == 0
    anna[0].future.cancel()
    anna[2].future.set_result(None)
    for ticket in bert:
        ticket.future.cancel()

    assert line.drop_answered() == 3
    assert len(line) == 2
    assert seeds(line.all()) == seeds(line.take(9)) == [1, 3]
