"""Load on a server: so many connections, each asking for one picture after another, and what that took.

Closed loop: every connection asks as soon as it has its answer. Open loop (--rate): pictures are wanted at random
moments, so many a second whatever the server does, and each latency counts from the moment the picture was wanted: one
that had to wait for a free connection has waited. Every request asks for another seed.

Written on sockets, in a process of its own, for a client library would take as much of the machine as the server does.
What it takes itself is in its answer. python benchmarks/load.py --port 8000 --path '/v1/models/emoji/image?seed={seed}'
"""

import argparse
import asyncio
import contextlib
import json
import math
import random
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import uvloop

PATIENCE = 8.0  # seconds: what is not answered so long after the end is an error
RECONNECT_SECONDS = 0.05
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Target:
    """Where pictures are had; {seed} in path and body is the seed of each."""

    port: int
    path: str
    body: str = ""  # JSON; with one it is a POST

    def of(self, seed: int) -> tuple[str, str]:
        """Path and body of one picture."""
        return self.path.replace("{seed}", str(seed)), self.body.replace("{seed}", str(seed))

    def request(self, seed: int) -> bytes:
        """One HTTP request."""
        path, body = self.of(seed)
        length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        return f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}".encode()


@dataclass(frozen=True)
class Load:
    """What is asked of a server."""

    clients: int
    seconds: float  # that are measured
    warm: float = 0.0  # seconds before them
    rate: float = 0.0  # pictures wanted a second; 0 is a closed loop


@dataclass(frozen=True)
class Measured:
    """What came of it. Latencies in milliseconds, of the pictures that were wanted in the measured seconds."""

    rate: float  # pictures that came in the measured seconds, a second
    p50: float
    p95: float
    p99: float
    errors: int  # refused, broken, no PNG, or not answered in time
    requests: int
    client_ms: float  # of this process's CPU time, a request


class Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    def __init__(self, driver: "Driver") -> None:
        self.driver = driver
        self.wanted: float | None = None  # when the picture under way was wanted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to ask."""
        self.transport: Any = transport  # uvloop's are none of asyncio's

    def ask(self, wanted: float, request: bytes) -> None:
        """Send a request for a picture that was wanted at this time."""
        self.wanted = wanted
        self.answer = bytearray()
        self.expected = 0
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Collect an answer, and tell at its end whether it is a picture."""
        if self.wanted is None:
            return
        self.answer += data
        if not self.expected and (head := self.answer.find(b"\r\n\r\n")) >= 0:
            length = bytes(self.answer[:head]).lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.body = head + 4
            self.expected = self.body + int(length or 0)
        if self.expected and len(self.answer) >= self.expected:
            picture = self.answer.startswith(b"HTTP/1.1 200") and self.answer.startswith(PNG, self.body)
            self._end(picture)

    def _end(self, picture: bool) -> None:
        assert self.wanted is not None
        wanted, self.wanted = self.wanted, None
        self.driver.ended(self, wanted, picture)

    def connection_lost(self, exc: Exception | None) -> None:
        """A request under way is lost with it."""
        self.driver.lost(self)
        if self.wanted is not None:
            self._end(False)


class Driver:
    """One measurement: who asks next, and what the answers took."""

    def __init__(self, target: Target, load: Load, seeds: Iterator[int]) -> None:
        self.target = target
        self.load = load
        self.seeds = seeds
        self.loop = asyncio.get_running_loop()
        self.idle: deque[Connection] = deque()
        self.busy: set[Connection] = set()
        self.waiting: deque[float] = deque()  # wanted, and not yet asked for
        self.milliseconds: list[float] = []
        self.pictures = self.errors = self.requests = 0
        self.over = False  # nothing more will be wanted
        self.finished = asyncio.Event()
        self.closing = False
        self.reconnecting: set[asyncio.Task[None]] = set()

    async def run(self) -> Measured:
        """Connect, ask, and wait for the last answers."""
        for _ in range(self.load.clients):
            await self._connect()
        cpu = time.process_time()
        self.begin = time.perf_counter() + self.load.warm
        self.end = self.begin + self.load.seconds
        if self.load.rate:
            threading.Thread(target=self._want, args=(arrivals(self.load), self.begin - self.load.warm)).start()
        else:
            for connection in list(self.idle):
                self._next(connection)
            self.loop.call_at(self.loop.time() + self.end - time.perf_counter(), self._all_wanted)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.finished.wait(), self.load.warm + self.load.seconds + PATIENCE)
        self._abandon()
        return self._measured(time.process_time() - cpu)

    async def _connect(self) -> None:
        _, connection = await self.loop.create_connection(lambda: Connection(self), "127.0.0.1", self.target.port)
        self.idle.append(connection)

    def _want(self, moments: Sequence[float], start: float) -> None:
        """In a thread of its own, because an event loop's timers are a millisecond late."""
        for moment in moments:
            time.sleep(max(0.0, start + moment - time.perf_counter()))
            self.loop.call_soon_threadsafe(self._wanted, start + moment)
        self.loop.call_soon_threadsafe(self._all_wanted)

    def _wanted(self, moment: float) -> None:
        self.waiting.append(moment)
        if self.idle:
            self._next(self.idle[0])

    def _next(self, connection: Connection) -> None:
        """What an idle connection asks for next, if anything."""
        if not self.load.rate and not self.over:
            self.waiting.append(time.perf_counter())
        if not self.waiting:
            self._look()
            return
        self.idle.remove(connection)
        self.busy.add(connection)
        self.requests += 1
        connection.ask(self.waiting.popleft(), self.target.request(next(self.seeds)))

    def ended(self, connection: Connection, wanted: float, picture: bool) -> None:
        """An answer has come, or never will."""
        now = time.perf_counter()
        self.busy.discard(connection)
        if not connection.transport.is_closing():
            self.idle.append(connection)
        self._count(wanted, now, picture)
        if connection in self.idle:
            self._next(connection)

    def _count(self, wanted: float, now: float, picture: bool) -> None:
        """What was refused at once is an error and no latency."""
        if not picture:
            self.errors += now >= self.begin
            return
        self.pictures += self.begin <= now < self.end
        if self.begin <= wanted < self.end:
            self.milliseconds.append(1e3 * (now - wanted))

    def lost(self, connection: Connection) -> None:
        """Connect again in the place of a lost connection."""
        if connection in self.idle:
            self.idle.remove(connection)
        if not self.closing:
            task = self.loop.create_task(self._again())
            self.reconnecting.add(task)
            task.add_done_callback(self.reconnecting.discard)

    async def _again(self) -> None:
        while not self.closing:
            await asyncio.sleep(RECONNECT_SECONDS)
            with contextlib.suppress(OSError):
                await self._connect()
                self._next(self.idle[-1])
                return

    def _all_wanted(self) -> None:
        self.over = True
        self._look()

    def _look(self) -> None:
        if self.over and not self.busy and not self.waiting:
            self.finished.set()

    def _abandon(self) -> None:
        """Count what was never answered as an error, and as a latency of at least until now."""
        self.closing = True
        now = time.perf_counter()
        for wanted in [*self.waiting, *(connection.wanted for connection in self.busy)]:
            assert wanted is not None
            self.errors += 1
            self.milliseconds.append(1e3 * (now - wanted))
        for connection in [*self.idle, *self.busy]:
            connection.wanted = None
            connection.transport.abort()

    def _measured(self, cpu: float) -> Measured:
        return Measured(
            self.pictures / self.load.seconds,
            *(percentile(self.milliseconds, share) for share in (0.50, 0.95, 0.99)),
            errors=self.errors,
            requests=self.requests,
            client_ms=1e3 * cpu / max(1, self.requests),
        )


def arrivals(load: Load) -> list[float]:
    """When pictures are wanted, in seconds from the start: a Poisson process, the same for every server."""
    chance = random.Random(load.rate)  # noqa: S311 - no secret
    moments = [chance.expovariate(load.rate)]
    while moments[-1] < load.warm + load.seconds:
        moments.append(moments[-1] + chance.expovariate(load.rate))
    return moments[:-1]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed; infinite where there are none."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else math.inf


async def drive(target: Target, load: Load, first_seed: int) -> Measured:
    """Put this load on a server that is up."""
    return await Driver(target, load, count(first_seed)).run()


def main() -> None:
    """Print what came of it, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", default="")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--first-seed", type=int, default=0)
    given = parser.parse_args()
    target = Target(given.port, given.path, given.body)
    load = Load(given.clients, given.seconds, given.warm, given.rate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(drive(target, load, given.first_seed)))))


if __name__ == "__main__":
    main()
