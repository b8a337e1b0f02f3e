"""Work-conserving batching: whoever is free paints what waits, and never waits for more."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from math import ceil
from threading import Condition, Thread
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.errors import Busy, InvalidRequest, Unavailable
from app.serving.loader import LoadedGenerator, Loader
from app.serving.recipe import Recipe

FINISHERS = 2  # threads that turn pixels into files: the compression runs outside Python's lock
FINISH_TOGETHER = 8  # pictures: handed back in groups, so that the first need not wait for the last
LOADERS = 2  # threads that read checkpoints, so that a slow one does not keep a second model from starting
FIRST_GUESS_SECONDS = 0.05  # per picture, for Retry-After, until a pass has been timed
RECENT = 0.1  # weight of the latest pass in the measured seconds a picture

Finish = Callable[[Recipe, NDArray[np.uint8]], Any]  # pixels [H, W, C] to what the caller wants


@dataclass(slots=True, eq=False)
class Ticket:
    """One picture that was asked for."""

    number: int
    recipe: Recipe
    finish: Finish
    future: asyncio.Future[Any]


class Line:
    """The tickets of one checkpoint, oldest first; they wait for it to load, then for the device."""

    def __init__(self) -> None:
        self.generator: LoadedGenerator | None = None
        self.tickets: deque[Ticket] = deque()


@dataclass(slots=True)
class Stats:
    """What the batcher has done since it was made, and what waits; read from any thread."""

    waiting: int = 0  # pictures asked for and not yet answered
    batches: int = 0
    pictures: int = 0
    refused: int = 0
    compute_seconds: float = 0.0
    seconds_per_picture: float = FIRST_GUESS_SECONDS


class Batcher:
    """Painters, each a thread that makes one pass at a time, and lines of tickets: the oldest ticket's line goes first.

    Make one in the event loop that will submit to it. prepare_thread runs first in each thread that computes.
    """

    def __init__(
        self, loader: Loader, *, max_waiting: int, painters: int = 1, prepare_thread: Callable[[], None] = lambda: None
    ) -> None:
        self.loader = loader
        self.max_waiting = max_waiting
        self.stats = Stats()
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, Line] = {}
        self._numbers = count()
        self._wake = Condition()
        self._closed = False
        self._finishers = ThreadPoolExecutor(FINISHERS, "finish")
        self._loaders = ThreadPoolExecutor(LOADERS, "load", initializer=prepare_thread)
        self._idle = 0  # painters
        self._painters = [
            Thread(target=self._paint, args=(prepare_thread,), name=f"paint_{number}", daemon=True)
            for number in range(painters)
        ]
        for painter in self._painters:
            painter.start()

    async def close(self) -> None:
        """Stop: the pass that runs is delivered, whoever still waits gets Unavailable."""
        with self._wake:
            self._closed = True
            waiting = [ticket for line in self._lines.values() for ticket in line.tickets]
            self._lines.clear()
            self._wake.notify_all()
        self._deliver([(ticket, Unavailable("The service is stopping.")) for ticket in waiting])
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for painter in self._painters:
            painter.join()
        self._loaders.shutdown(cancel_futures=True)
        self._finishers.shutdown()

    async def submit(self, recipes: Sequence[Recipe], finish: Finish = lambda _, pixels: pixels) -> list[Any]:
        """What finish makes of each picture, in order; finish runs in a thread of its own.

        All of them get a place or none: Busy where the places are taken. Cancelled ones are dropped before their pass.
        """
        waiting = self.stats.waiting
        if waiting + len(recipes) > self.max_waiting:
            self.stats.refused += len(recipes)
            seconds = waiting * self.stats.seconds_per_picture
            raise Busy(f"{waiting} pictures are waiting; at most {self.max_waiting} may.", retry_after=seconds)
        tickets = [Ticket(next(self._numbers), recipe, finish, self._loop.create_future()) for recipe in recipes]
        self.stats.waiting += len(tickets)
        try:
            self._enqueue(tickets)
            return await asyncio.gather(*(ticket.future for ticket in tickets))
        finally:
            self.stats.waiting -= len(tickets)
            for ticket in tickets:
                ticket.future.cancel()

    def _enqueue(self, tickets: Sequence[Ticket]) -> None:
        with self._wake:
            if self._closed:
                raise Unavailable("The service is stopping.")
            for ticket in tickets:
                sha256 = ticket.recipe.checkpoint
                if sha256 not in self._lines:
                    self._lines[sha256] = self._open(sha256)
                self._lines[sha256].tickets.append(ticket)
            self._wake.notify(len(tickets))

    def _open(self, sha256: str) -> Line:
        line = Line()
        line.generator = self.loader.loaded(sha256)
        if line.generator is None:
            self._loaders.submit(self._load, sha256, line)
        return line

    def _load(self, sha256: str, line: Line) -> None:
        """Runs in a loader thread."""
        try:
            generator = self.loader.get(sha256)
        except Exception as error:  # noqa: BLE001 whatever it is, it belongs to those who wait for this checkpoint
            with self._wake:
                self._lines.pop(sha256, None)
            self._hand_back([(ticket, error) for ticket in line.tickets])
            return
        with self._wake:
            line.generator = generator
            self._wake.notify_all()

    def _paint(self, prepare_thread: Callable[[], None]) -> None:
        """Runs in a painter's thread: take, paint, pass on, until closed."""
        prepare_thread()
        while True:
            with self._wake:
                self._idle += 1
                while not (self._closed or any(line.generator for line in self._lines.values())):
                    self._wake.wait()
                if self._closed:
                    return
                generator, tickets = self._take()
                self._idle -= 1
            if fitting := self._fitting(generator, tickets):
                self._pass(generator, fitting)

    def _take(self) -> tuple[LoadedGenerator, list[Ticket]]:
        """A batch from the line whose oldest ticket is the oldest; those who left are dropped here.

        Idle painters share what waits: all of them together are sooner done than one alone.
        """
        ready = ((sha256, line, line.generator) for sha256, line in self._lines.items() if line.generator is not None)
        sha256, line, generator = min(ready, key=lambda entry: entry[1].tickets[0].number)
        tickets = [ticket for ticket in line.tickets if not ticket.future.cancelled()]
        size = generator.batch_size(ceil(len(tickets) / self._idle))
        line.tickets = deque(tickets[size:])
        if not line.tickets:
            del self._lines[sha256]
        return generator, tickets[:size]

    def _pass(self, generator: LoadedGenerator, tickets: Sequence[Ticket]) -> None:
        """One forward pass, in a painter's thread; the files are made elsewhere while the next one runs."""
        started = perf_counter()
        try:
            pictures = generator.render([ticket.recipe for ticket in tickets])
        except Exception as error:  # noqa: BLE001 it belongs to those in the batch, and the next batch must come
            self._hand_back([(ticket, error) for ticket in tickets])
            return
        self._count(len(tickets), perf_counter() - started)
        for first in range(0, len(tickets), FINISH_TOGETHER):
            group = slice(first, first + FINISH_TOGETHER)
            self._finishers.submit(self._finish, tickets[group], pictures[group])

    def _fitting(self, generator: LoadedGenerator, tickets: Sequence[Ticket]) -> list[Ticket]:
        """The tickets this generator can paint; the others are answered here, so that they spoil nobody's pass."""
        fitting = []
        for ticket in tickets:
            try:
                generator.check(ticket.recipe)
                fitting.append(ticket)
            except InvalidRequest as error:
                self._hand_back([(ticket, error)])
        return fitting

    def _count(self, pictures: int, seconds: float) -> None:
        each = seconds / pictures / len(self._painters)
        with self._wake:
            self.stats.batches += 1
            self.stats.pictures += pictures
            self.stats.compute_seconds += seconds
            self.stats.seconds_per_picture += RECENT * (each - self.stats.seconds_per_picture)

    def _finish(self, tickets: Sequence[Ticket], pictures: NDArray[np.uint8]) -> None:
        """Runs in a finisher thread."""
        answers: list[tuple[Ticket, Any]] = []
        for ticket, pixels in zip(tickets, pictures, strict=True):
            try:
                answers.append((ticket, ticket.finish(ticket.recipe, pixels)))
            except Exception as error:  # noqa: BLE001 it belongs to this picture's caller
                answers.append((ticket, error))
        self._hand_back(answers)

    def _hand_back(self, answers: list[tuple[Ticket, Any]]) -> None:
        """From any thread: one wake-up of the event loop for all of them."""
        self._loop.call_soon_threadsafe(self._deliver, answers)

    def _deliver(self, answers: list[tuple[Ticket, Any]]) -> None:
        for ticket, answer in answers:
            if ticket.future.done():
                continue  # it left in the meantime
            if isinstance(answer, Exception):
                ticket.future.set_exception(answer)
            else:
                ticket.future.set_result(answer)
