"""An accepted job is a promise: an API that is killed at the worst moment breaks none, and keeps none twice."""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.core.records import Job
from tests.chaos.conftest import Figures
from tests.chaos.parts import Parts, Replica, order, wait_for

REPLICAS = 3  # one is killed while the others start again
AT_ONCE = 2  # requests that a kill interrupts
COMMIT_SECONDS = 20.0
RANDOM_KILL_SECONDS = 0.4  # a request takes some hundredths of a second, on a busy machine tenths
END_SECONDS = 240.0
RETRY_SECONDS = 60.0  # a key that a killed process held is free again after 15 s


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "data", ["render", "render"], REPLICAS)
    yield made
    made.close()


class Orders:
    """Requests under way in threads, and the jobs that were promised."""

    def __init__(self, replica: Replica) -> None:
        self.promised: list[str] = []
        self.refused: list[str] = []
        self.broken: list[str] = []  # Idempotency-Keys of requests that got no answer
        self._threads = [threading.Thread(target=self._order, args=(replica.url,)) for _ in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def _order(self, url: str) -> None:
        key = uuid.uuid4().hex
        try:
            with httpx.Client(base_url=url, timeout=30) as client:
                answer = order(client, key)
        except httpx.TransportError:
            self.broken.append(key)  # killed before it answered: nothing was promised
            return
        if answer.status_code == 202:
            self.promised.append(answer.json()["id"])
        else:
            self.refused.append(f"{answer.status_code} {answer.text[:200]}")

    def wait(self) -> None:
        """Until each was answered or broken off."""
        for thread in self._threads:
            thread.join()


def unheard(parts: Parts) -> int:
    """Jobs whose row is committed and that nobody was told of."""
    with parts.db.read() as session:
        query = select(func.count()).select_from(Job).where(Job.dispatched_at.is_(None), Job.status == "queued")
        return session.scalar(query) or 0


def kill_in_the_gap(parts: Parts, replica: Replica, *, answered: bool) -> tuple[Orders, int]:
    """Kill -9 between the commit of the rows and their dispatch: Redis hangs, so that no dispatch gets through.

    answered: after the 202s, which do not wait for Redis; else before them. Returns the requests, and the rows that
    were committed and not dispatched at the moment of the kill.
    """
    before = parts.count()
    with parts.redis.frozen():
        orders = Orders(replica)
        wait_for(lambda: parts.count() == before + AT_ONCE, COMMIT_SECONDS, "the rows are committed")
        if answered:
            orders.wait()
        replica.kill()
        orders.wait()
        return orders, unheard(parts)


def kill_at_random(replica: Replica, chance: random.Random) -> Orders:
    """Kill -9 somewhere in the middle of requests."""
    orders = Orders(replica)
    time.sleep(chance.uniform(0, RANDOM_KILL_SECONDS))
    replica.kill()
    orders.wait()
    return orders


def ask_again(replica: Replica, key: str) -> str:
    """The job of a request that got no answer, from asking for it again with its key until there is one."""
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(order(client, key))
        assert answers[-1].status_code in {202, 409}, answers[-1].text
        return answers[-1].status_code == 202

    with httpx.Client(base_url=replica.url, timeout=30) as client:
        wait_for(answered, RETRY_SECONDS, "the request is answered")
    job: str = answers[-1].json()["id"]
    return job


def check(parts: Parts, promised: list[str], refused: list[str]) -> set[str]:
    """Every promised job, and every job that was committed without an answer, runs exactly once; all jobs there are."""
    wait_for(lambda: parts.unfinished() == 0, END_SECONDS, "all jobs have ended")
    outcomes = parts.outcomes()
    assert refused == []
    assert set(promised) <= set(outcomes)
    assert set(outcomes.values()) == {("succeeded", 1)}, Counter(outcomes.values())
    return set(outcomes)


def test_every_job_that_an_api_accepted_runs_once_when_it_is_killed_before_the_bell_rings(
    parts: Parts, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    promised: list[str] = []
    refused: list[str] = []
    gaps = 0
    kills = rounds(12, 200)
    for number in range(kills):
        replica = parts.replicas[number % REPLICAS].wait()
        orders, rows = kill_in_the_gap(parts, replica, answered=number % 2 == 0)
        replica.restart()
        promised += orders.promised
        refused += orders.refused
        gaps += rows >= AT_ONCE
        parts.tend()
    assert gaps == kills, "a kill missed the gap"
    assert len(promised) >= kills // 2 * AT_ONCE
    parts.replicas[0].wait()
    outcomes = check(parts, promised, refused)
    figures.add(
        f"acceptance gap: {kills} kills of an API between commit and dispatch; {len(promised)} answers 202, "
        f"{len(outcomes)} jobs committed, each ran exactly once"
    )


def test_a_request_that_is_sent_again_with_its_key_after_a_kill_makes_one_job_that_runs_once(
    parts: Parts, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    chance = random.Random(0)
    promised: list[str] = []
    broken: list[str] = []
    refused: list[str] = []
    kills = rounds(6, 60)
    for number in range(kills):
        replica = parts.replicas[number % REPLICAS].wait()
        orders = kill_at_random(replica, chance)
        replica.restart()
        promised += orders.promised
        broken += orders.broken
        refused += orders.refused
        parts.tend()
    first = parts.replicas[0].wait()
    again = [ask_again(first, key) for key in broken]
    outcomes = check(parts, promised + again, refused)
    assert set(outcomes) == {*promised, *again}
    assert len(outcomes) == kills * AT_ONCE
    figures.add(
        f"random kills: {kills} kills of an API in the middle of requests; {len(promised)} answers 202, {len(again)} "
        f"requests without an answer sent again with their keys: {len(outcomes)} jobs for {kills * AT_ONCE} requests, "
        "each ran exactly once"
    )
