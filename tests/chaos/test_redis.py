"""Redis is only the bell: flushed, gone, frozen, full or restored from an old dump, it costs time and never a job."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.conftest import FULL, Figures
from tests.chaos.parts import MODEL, Parts, order, wait_for

FLUSH_PAUSE_SECONDS = 3.0
OUTAGES = (1.0, 8.0, 60.0) if FULL else (1.0, 8.0)
FREEZE_SECONDS = 30.0 if FULL else 6.0
FULL_SECONDS = 10.0 if FULL else 4.0
JOB_SECONDS = 0.2  # the usual time of one: what is asked for meanwhile is as much as can be done
READ_PAUSE_SECONDS = 0.2
ANSWER_SECONDS = 10.0  # whatever Redis does: a hanging one must not make callers wait, a busy machine may
END_SECONDS = 900.0


class Customers:
    """One who asks for jobs, and one who looks on; whatever Redis does, both are answered."""

    def __init__(self, url: str, orders: int) -> None:
        self.promised: list[str] = []
        self.answers: Counter[str] = Counter()
        self.slowest = 0.0
        self._stopped = threading.Event()
        self._orders = orders
        self._client = httpx.Client(base_url=url, timeout=60)
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._look)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        for _ in range(self._orders):
            began = time.monotonic()
            answer = self._note("POST", lambda: order(self._client))
            if answer is not None and answer.status_code == 202:
                self.promised.append(answer.json()["id"])
            if self._stopped.wait(max(0.0, JOB_SECONDS - (time.monotonic() - began))):
                return

    def _look(self) -> None:
        paths = ("/v1/jobs?limit=5", f"/v1/models/{MODEL}/image?seed=3", "/v1/models", "/readyz")
        turn = 0
        while not self._stopped.wait(READ_PAUSE_SECONDS):
            path = paths[turn % len(paths)]
            self._note("GET", lambda path=path: self._client.get(path))
            turn += 1

    def _note(self, method: str, ask: Callable[[], httpx.Response]) -> httpx.Response | None:
        began = time.monotonic()
        try:
            answer = ask()
        except httpx.TransportError as error:
            self.answers[f"{method} {type(error).__name__}"] += 1
            return None
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.answers[f"{method} {answer.status_code}"] += 1
        return answer

    def done(self) -> bool:
        """Whether everything has been asked for."""
        return not self._threads[0].is_alive()

    def leave(self) -> None:
        """No more requests."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._client.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "data", ["render", "render"], 1)
    yield made
    made.close()


def tend(parts: Parts, seconds: float) -> int:
    """Let time pass, and start workers again that ended, as the supervisor does; how many."""
    until = time.monotonic() + seconds
    ended = 0
    while time.monotonic() < until:
        ended += parts.tend()
        time.sleep(0.2)
    return ended


def disasters(parts: Parts, place: Path, flushes: int) -> int:
    """Everything that may happen to a Redis, one after the other; how many workers had to be started again."""
    ended = 0
    parts.redis.dump(place)
    for _ in range(flushes):
        ended += tend(parts, FLUSH_PAUSE_SECONDS)
        parts.redis.flush()
    for seconds in OUTAGES:
        parts.redis.kill()
        ended += tend(parts, seconds)
        parts.redis.start()
        ended += tend(parts, FLUSH_PAUSE_SECONDS)
    with parts.redis.frozen():
        ended += tend(parts, FREEZE_SECONDS)
    ended += tend(parts, FLUSH_PAUSE_SECONDS)
    parts.redis.configure("maxmemory", "1mb")  # less than it has in use: every write is refused
    ended += tend(parts, FULL_SECONDS)
    parts.redis.configure("maxmemory", "0")
    ended += tend(parts, FLUSH_PAUSE_SECONDS)
    parts.redis.restore(place)
    return ended + tend(parts, FLUSH_PAUSE_SECONDS)


def test_no_accepted_job_is_lost_and_nobody_is_answered_500_whatever_happens_to_redis(
    parts: Parts, tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    orders, flushes = rounds(150, 2000), rounds(3, 20)
    customers = Customers(parts.replicas[0].url, orders)
    ended = disasters(parts, tmp_path / "dump", flushes)

    def all_done() -> bool:
        nonlocal ended
        ended += parts.tend()
        return customers.done() and parts.unfinished() == 0

    wait_for(all_done, END_SECONDS, "all jobs have ended")
    customers.leave()
    outcomes = parts.outcomes()
    lost = [job for job in customers.promised if outcomes.get(job, ("lost", 0))[0] != "succeeded"]
    again = sum(begun > 1 for _, begun in outcomes.values())
    assert lost == [], (Counter(outcomes.values()), parts.errors()[:3])
    assert len(customers.promised) == orders, customers.answers
    broken = {answer: count for answer, count in customers.answers.items() if not answer.endswith(("200", "202"))}
    assert broken == {}
    assert customers.slowest < ANSWER_SECONDS
    figures.add(
        f"Redis flushed {flushes} times, gone for {', '.join(f'{each:.0f}' for each in OUTAGES)} s, frozen for "
        f"{FREEZE_SECONDS:.0f} s, full, restored from an old dump: {len(customers.promised)} jobs accepted, "
        f"{len(lost)} lost, {again} begun again, {ended} workers started again; {customers.answers.total()} answers, "
        f"none an error, the slowest after {customers.slowest:.1f} s"
    )
