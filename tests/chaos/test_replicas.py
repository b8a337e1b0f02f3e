"""Two replicas behind a balancer: each is stopped and started again under load, and no request is dropped."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.balancer import Balancer
from tests.chaos.conftest import Figures
from tests.chaos.parts import MODEL, SMALL_GRID, Parts, wait_for

REQUESTS_A_SECOND = 50
NOTICE_SECONDS = 2.0  # GANVAS_DRAIN_NOTICE_SECONDS: eight polls of the balancer
JOB_EVERY = 50  # requests: one order of a job a second, the others are reads and pictures
STREAM = {"prompt": "", "model": MODEL, "n": 2, "stream": True}  # of events, one a picture
STOP_SECONDS = 30.0
END_SECONDS = 120.0


class Crowd:
    """Sends requests at a steady rate, whether or not the earlier ones have been answered."""

    def __init__(self, port: int) -> None:
        self.answers: Counter[str] = Counter()
        self.dropped: list[str] = []
        self.promised: list[str] = []
        self._url = f"http://127.0.0.1:{port}"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))
        self._thread.start()

    async def _send(self) -> None:
        own_connections = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=60, limits=own_connections) as client,
            asyncio.TaskGroup() as requests,
        ):
            began = time.monotonic()
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began + number / REQUESTS_A_SECOND - time.monotonic()))
                if self._stopped.is_set():
                    return
                requests.create_task(self._ask(client, number))

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        try:
            if number % JOB_EVERY == 0:
                answer = await client.post("/v1/renders", json=SMALL_GRID)
            elif number % 5 == 0:
                answer = await client.get("/v1/jobs?limit=3")
            elif number % 7 == 0:
                answer = await client.post("/v1/images/generations", json=STREAM | {"seed": number})
                if answer.text.count("event: image_generation.completed") != STREAM["n"]:
                    self.dropped.append(f"a stream broke off: {answer.text[-200:]}")
            else:
                answer = await client.get(f"/v1/models/{MODEL}/image?seed={number}")
        except httpx.TransportError as error:
            self.dropped.append(repr(error))
            return
        self.answers[str(answer.status_code)] += 1
        if answer.status_code == 202:
            self.promised.append(answer.json()["id"])
        elif answer.status_code != 200:
            self.dropped.append(f"{answer.status_code} {answer.text[:200]}")

    def leave(self) -> None:
        """Stop asking, and wait for what was asked."""
        self._stopped.set()
        self._thread.join()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "data", ["render"], 2, GANVAS_DRAIN_NOTICE_SECONDS=str(NOTICE_SECONDS))
    yield made
    made.close()


def test_no_request_is_dropped_while_one_replica_after_the_other_is_restarted(
    parts: Parts, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    restarts = rounds(4, 20)
    slowest_stop = 0.0
    with Balancer(parts.replicas) as balancer:
        crowd = Crowd(balancer.port)
        try:
            for number in range(restarts):
                replica = parts.replicas[number % 2]
                began = time.monotonic()
                replica.terminate()
                replica.process.wait(timeout=STOP_SECONDS)
                slowest_stop = max(slowest_stop, time.monotonic() - began)
                replica.restart()
                wait_for(lambda replica=replica: balancer.sends_to(replica), END_SECONDS, "it is ready again")
        finally:
            crowd.leave()
    assert crowd.dropped == []
    wait_for(lambda: parts.unfinished() == 0, END_SECONDS, "all jobs have ended")
    outcomes = parts.outcomes()
    assert {outcomes[job] for job in crowd.promised} == {("succeeded", 1)}
    figures.add(
        f"two replicas, {REQUESTS_A_SECOND} requests a second, {restarts} restarts: {crowd.answers.total()} answered, "
        f"{len(crowd.dropped)} dropped; the slowest stop took {slowest_stop:.1f} s, {NOTICE_SECONDS:.0f} of them notice"
    )
