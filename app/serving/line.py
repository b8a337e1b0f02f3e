"""Who is next: the pictures that wait for one checkpoint, callers in turns."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.serving.paint import LoadedGenerator
from app.serving.recipe import Recipe

Finish = Callable[[Recipe, NDArray[np.uint8]], Any]  # pixels [H, W, C] to what the caller wants


@dataclass(slots=True, eq=False)
class Ticket:
    """One picture that was asked for."""

    recipe: Recipe
    finish: Finish
    future: asyncio.Future[Any]
    caller: str
    asked: float  # time.perf_counter()
    w: Tensor | None = None  # [num_ws, w_dim], where not the recipe's own point is painted but this
    taken: bool = False  # into a pass: too late to leave the line

    @property
    def painted(self) -> Recipe | Tensor:
        """What is painted."""
        return self.recipe if self.w is None else self.w


class Line:
    """The tickets of one checkpoint; they wait for it to load, then for a device."""

    def __init__(self) -> None:
        self.generator: LoadedGenerator | None = None
        self._callers: OrderedDict[str, deque[Ticket]] = OrderedDict()  # whose turn it is first; none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, ticket: Ticket) -> None:
        """Join behind the same caller's others; a new caller's turn comes when all others have had theirs."""
        self._callers.setdefault(ticket.caller, deque()).append(ticket)
        self._length += 1

    def take(self, count: int) -> list[Ticket]:
        """The next tickets, at most `count`: one of each caller, then a second of each, and so on."""
        taken: list[Ticket] = []
        while len(taken) < count and self._callers:
            caller, tickets = self._callers.popitem(last=False)
            taken.append(tickets.popleft())
            if tickets:
                self._callers[caller] = tickets  # behind the others
        self._length -= len(taken)
        return taken

    def drop_answered(self) -> int:
        """Forget those who were answered in the meantime or have left; returns how many of them left."""
        answered = [ticket for ticket in self.all() if ticket.future.done()]
        if answered:
            waiting = [ticket for ticket in self.all() if not ticket.future.done()]
            self._callers.clear()
            self._length = 0
            for ticket in waiting:
                self.add(ticket)
        return sum(ticket.future.cancelled() for ticket in answered)

    def all(self) -> list[Ticket]:
        """Every ticket, caller by caller."""
        return [ticket for tickets in self._callers.values() for ticket in tickets]
