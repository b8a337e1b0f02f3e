"""A small balancer: one connection a request, in turn to those whose /readyz says 200; it never tries a second time."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Sequence
from typing import Self

import httpx

from tests.chaos.parts import Replica, wait_for

POLL_SECONDS = 0.25
POLL_TIMEOUT_SECONDS = 5.0  # a machine with two cores starts the other replica meanwhile
CHUNK_BYTES = 65536


class Balancer:
    """Answers on `port`, in a thread of its own, for the length of a `with` block."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.port = 0
        self._replicas = replicas
        self._ready: set[str] = set()
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: len(self._ready) == len(self._replicas), 30, "every replica is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    def sends_to(self, replica: Replica) -> bool:
        """Whether it holds this replica to be ready."""
        return replica.url in self._ready

    async def _run(self) -> None:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server, asyncio.TaskGroup() as tasks:
            polls = [tasks.create_task(self._poll(replica.url)) for replica in self._replicas]
            await self._end.wait()
            for poll in polls:
                poll.cancel()

    async def _poll(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=POLL_TIMEOUT_SECONDS) as client:
            while True:
                try:
                    ready = (await client.get("/readyz")).status_code == httpx.codes.OK
                except httpx.TransportError:
                    ready = False
                (self._ready.add if ready else self._ready.discard)(url)
                await asyncio.sleep(POLL_SECONDS)

    async def _relay(self, caller: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(back):
            head = await caller.readuntil(b"\r\n\r\n")
            ready = sorted(self._ready)
            address = httpx.URL(ready[next(self._turn) % len(ready)])
            answer, forth = await asyncio.open_connection(address.host, address.port)
            with contextlib.closing(forth):
                forth.write(head[:-2] + b"Connection: close\r\n\r\n")
                sending = asyncio.create_task(_pump(caller, forth))
                await _pump(answer, back)
                sending.cancel()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        target.write(chunk)
        await target.drain()
