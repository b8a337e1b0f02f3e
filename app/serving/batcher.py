"""Work-conserving batching over one device: whoever is free paints what waits."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from math import ceil
from threading import Condition, Thread
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.core.errors import Busy, GanvasError, Unavailable
from app.serving.line import Finish, Line, Ticket
from app.serving.loader import Loader
from app.serving.meters import Meters
from app.serving.paint import LoadedGenerator
from app.serving.recipe import Dtype, Recipe

FINISH_TOGETHER = 8  # pictures: handed back in groups, so that the first need not wait for the last
LOADERS = 2  # threads that read checkpoints, so that a slow one does not keep a second model from starting
TOP_UP_SECONDS = 0.002  # a pass waits so long for more, and only straight after one
TIMEOUT_SECONDS = 60.0  # a picture that has not begun by then is not wanted any more
FIRST_GUESS_SECONDS = 0.05  # per picture, for Retry-After, until a pass has been timed
RECENT = 0.1  # weight of the latest pass in the measured seconds a picture
REMEMBERED_WEIGHTS = 1000  # whose turn it was, and how long they take

Weights = tuple[str, Dtype | None]  # a checkpoint's sha256, and the numbers it paints with


@dataclass(slots=True)
class Stats:
    """What the batcher has done since it was made, and what waits; read from any thread."""

    waiting: int = 0  # pictures asked for and not yet answered
    batches: int = 0
    pictures: int = 0
    refused: int = 0


class Batcher:
    """Painters, threads that make one pass at a time each, and a line of tickets for each checkpoint, served in turns.

    Make one in the event loop that will submit to it. prepare_thread runs first in each thread that computes.
    finishers: threads that turn pixels into files while the painters go on; 0: each painter does it, which is less to
    hand over, and right where painters and finishers would share the same cores.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        max_waiting: int,
        painters: int = 1,
        finishers: int = 0,
        prepare_thread: Callable[[], None] = lambda: None,
        meters: Meters | None = None,
    ) -> None:
        self.loader = loader
        self.max_waiting = max_waiting
        self.stats = Stats()
        self._meters = meters or Meters()
        self._loop = asyncio.get_running_loop()
        self._arrived: list[Ticket] = []  # and not in line yet; the event loop's own
        self._lines: dict[Weights, Line] = {}
        self._turns: dict[Weights, int] = {}  # the number of the latest pass of each
        self._seconds: dict[Weights, float] = {}  # per picture, lately
        self._last_pass = (0.0, 0)  # when it ended, and how many it painted
        self._wake = Condition()
        self._closed = False
        self._finishers = ThreadPoolExecutor(finishers, "finish") if finishers else None
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
            waiting = [*self._arrived, *(ticket for line in self._lines.values() for ticket in line.all())]
            self._arrived.clear()
            self._lines.clear()
            self._wake.notify_all()
        self._deliver([(ticket, Unavailable("The service is stopping.")) for ticket in waiting])
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for painter in self._painters:
            painter.join()
        self._loaders.shutdown(cancel_futures=True)
        if self._finishers is not None:
            self._finishers.shutdown()

    async def submit(
        self,
        recipes: Sequence[Recipe],
        finish: Finish = lambda _, pixels: pixels,
        *,
        caller: str = "",
        timeout: float = TIMEOUT_SECONDS,
        ws: Sequence[Tensor] = (),
    ) -> list[Any]:
        """What finish makes of each picture, in order; finish runs in another thread.

        ws: what is painted in place of the recipes' own points, [num_ws, w_dim] each; on the device of the loader.
        caller: who shares a turn; timeout: seconds until the pass must have begun, Unavailable where it has not.
        All pictures get a place or none: Busy where the places are taken. Cancelled ones are dropped before their pass.
        """
        self._admit(len(recipes))
        now = perf_counter()
        tickets = [
            Ticket(recipe, finish, self._loop.create_future(), caller, now, w) for recipe, w in zip_longest(recipes, ws)
        ]
        self.stats.waiting += len(tickets)
        expiry = self._loop.call_later(timeout, self._expire, tickets, timeout)
        try:
            self._enqueue(tickets)
            return [await ticket.future for ticket in tickets]
        finally:
            expiry.cancel()
            self.stats.waiting -= len(tickets)
            for ticket in tickets:
                if not ticket.future.cancel() and not ticket.future.cancelled():
                    ticket.future.exception()  # heard, where another one failed first

    def _admit(self, pictures: int) -> None:
        waiting = self.stats.waiting
        if waiting + pictures > self.max_waiting:
            self.stats.refused += pictures
            self._meters.refused("full", pictures)
            message = f"{waiting} pictures are waiting; at most {self.max_waiting} may."
            raise Busy(message, retry_after=self._seconds_of_work())

    def _seconds_of_work(self) -> float:
        """How long what waits will take, by what each checkpoint took lately."""
        with self._wake:
            lengths = {weights: len(line) for weights, line in self._lines.items()}
            known = list(self._seconds.values())
            usual = sum(known) / len(known) if known else FIRST_GUESS_SECONDS
            return max(usual, sum(self._seconds.get(weights, usual) * length for weights, length in lengths.items()))

    def _expire(self, tickets: Sequence[Ticket], timeout: float) -> None:
        late = [ticket for ticket in tickets if not ticket.taken and not ticket.future.done()]
        self._meters.refused("deadline", len(late))
        message = f"This picture's turn has not come within {timeout:g} s; ask again later."
        self._deliver([(ticket, Unavailable(message, code="deadline_exceeded")) for ticket in late])

    def _enqueue(self, tickets: Sequence[Ticket]) -> None:
        """Let the event loop first hear everybody who asks just now: they get into line together, and share a pass."""
        if self._closed:
            raise Unavailable("The service is stopping.")
        if not self._arrived:
            self._loop.call_soon(self._line_up)
        self._arrived += tickets

    def _line_up(self) -> None:
        tickets, self._arrived = self._arrived, []
        with self._wake:
            for ticket in tickets:
                weights = (ticket.recipe.checkpoint, ticket.recipe.dtype)
                if weights not in self._lines:
                    self._lines[weights] = self._open(weights)
                self._lines[weights].add(ticket)
            self._wake.notify(len(tickets))

    def _open(self, weights: Weights) -> Line:
        line = Line()
        line.generator = self.loader.loaded(*weights)
        if line.generator is None:
            self._loaders.submit(self._load, weights, line)
        return line

    def _load(self, weights: Weights, line: Line) -> None:
        """Runs in a loader thread."""
        try:
            generator = self.loader.get(*weights)
        except Exception as error:  # noqa: BLE001 whatever it is, it belongs to those who wait for this checkpoint
            with self._wake:
                self._lines.pop(weights, None)
            self._hand_back([(ticket, error) for ticket in line.all()])
            return
        with self._wake:
            line.generator = generator
            self._wake.notify_all()

    def _paint(self, prepare_thread: Callable[[], None]) -> None:
        """Runs in a painter's thread: take, paint, pass on, until closed."""
        prepare_thread()
        while (batch := self._next()) is not None:
            generator, weights, tickets = batch
            try:
                if fitting := self._fitting(generator, tickets):
                    self._pass(generator, weights, fitting)
            except Exception as error:  # noqa: BLE001 it belongs to those in the batch, and the next batch must come
                self._hand_back([(ticket, error) for ticket in tickets])

    def _next(self) -> tuple[LoadedGenerator, Weights, list[Ticket]] | None:
        """Wait for tickets, and take some of the line that was served the longest ago; None once closed."""
        with self._wake:
            self._idle += 1
            try:
                while not self._closed:
                    ready = {weights: line.generator for weights, line in self._lines.items() if line.generator}
                    if not ready:
                        self._wake.wait()
                        continue
                    weights = min(ready, key=lambda each: self._turns.get(each, -1))
                    line = self._lines[weights]
                    self._meters.dropped(line.drop_answered())
                    if not len(line):
                        del self._lines[weights]
                    elif patience := self._patience(len(line)):
                        self._wake.wait(patience)
                    else:
                        return ready[weights], weights, self._take(ready[weights], weights, line)
                return None
            finally:
                self._idle -= 1

    def _patience(self, waiting: int) -> float:
        """Seconds to wait for more: those the last pass was for ask again right after it, one after the other."""
        ended, size = self._last_pass
        return max(0.0, ended + TOP_UP_SECONDS - perf_counter()) if waiting < size else 0.0

    def _take(self, generator: LoadedGenerator, weights: Weights, line: Line) -> list[Ticket]:
        """A batch. Idle painters share what waits: all of them together are sooner done than one alone."""
        tickets = line.take(generator.batch_size(ceil(len(line) / self._idle)))
        now = perf_counter()
        for ticket in tickets:
            ticket.taken = True
            self._meters.queued(ticket.recipe.model, now - ticket.asked)
        if len(self._turns) >= REMEMBERED_WEIGHTS:
            self._turns.clear()
            self._seconds.clear()
        self._turns[weights] = self.stats.batches
        if not len(line):
            del self._lines[weights]
        return tickets

    def _fitting(self, generator: LoadedGenerator, tickets: Sequence[Ticket]) -> list[Ticket]:
        """The tickets this generator can paint; the others are answered here, so that they spoil nobody's pass."""
        fitting = []
        for ticket in tickets:
            try:
                generator.check(ticket.recipe)
                fitting.append(ticket)
            except GanvasError as error:  # what is stored for it may be out of reach
                self._hand_back([(ticket, error)])
        return fitting

    def _pass(self, generator: LoadedGenerator, weights: Weights, tickets: Sequence[Ticket]) -> None:
        """One forward pass, and files made of it."""
        started = perf_counter()
        pictures = generator.render([ticket.painted for ticket in tickets])
        self._count(weights, tickets, started)
        for first in range(0, len(tickets), FINISH_TOGETHER):
            group = tickets[first : first + FINISH_TOGETHER], pictures[first : first + FINISH_TOGETHER]
            if self._finishers is None:
                self._finish(*group)
            else:
                self._finishers.submit(self._finish, *group)
        self._last_pass = (perf_counter(), len(tickets))

    def _count(self, weights: Weights, tickets: Sequence[Ticket], started: float) -> None:
        ended = perf_counter()
        self._meters.passed(tickets[0].recipe.model, len(tickets), ended - started)
        each = (ended - started) / len(tickets) / len(self._painters)
        with self._wake:
            self.stats.batches += 1
            self.stats.pictures += len(tickets)
            usual = self._seconds.get(weights, each)
            self._seconds[weights] = usual + RECENT * (each - usual)

    def _finish(self, tickets: Sequence[Ticket], pictures: NDArray[np.uint8]) -> None:
        """Runs in a finisher's thread, or the painter's own."""
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
            if isinstance(answer, StopIteration):  # which no future takes
                ticket.future.set_exception(RuntimeError("StopIteration"))
            elif isinstance(answer, Exception):
                ticket.future.set_exception(answer)
            else:
                ticket.future.set_result(answer)
