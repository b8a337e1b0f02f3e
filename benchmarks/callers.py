"""Callers who ask a stormed server for pictures and stay for the answer, and what is wrong with what they get."""

import asyncio
import contextlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import studio

MARK = 4_000_000_000  # a pass that paints a seed from here on raises
ASKED = {"hot": 70, "swap": 10, "victim": 10, "cold": 5, "large": 5}  # models, of a hundred requests
KEPT_SEEDS = 20  # asked for again and again: the same bytes each time
MOST_TOGETHER = 8  # pictures of one request
HANG_SECONDS = 30
LINGER_SECONDS = 2  # a model that is back may still be said to be missing, and an error may still be on its way
PROBLEM = "application/problem+json"


@dataclass
class Spell:
    """A time in which callers may be told of something that is being done to the server."""

    since: float = math.inf
    until: float = -math.inf

    def begin(self) -> None:
        """From now on."""
        self.since, self.until = time.monotonic(), math.inf

    def end(self) -> None:
        """No longer, soon."""
        self.until = time.monotonic() + LINGER_SECONDS

    def explains(self, asked: float) -> bool:
        """Whether an answer that is here now, to what was asked then, may tell of it."""
        return asked < self.until and time.monotonic() > self.since


@dataclass
class Storm:
    """What is being done to a server, and what came of it."""

    server: studio.Server
    folder: Path
    chance: random.Random
    client: httpx.AsyncClient
    answers: Counter[int] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    injecting: Spell = field(default_factory=Spell)
    missing: Spell = field(default_factory=Spell)
    marked: Iterator[int] = field(default_factory=lambda: count(MARK))  # seeds whose pass raises
    files: dict[str, bytes] = field(default_factory=dict)  # of kept seeds, by recipe

    def waiting(self) -> float:
        """Pictures that the server says are asked for and not answered."""
        return studio.metrics(self.server.url)["ganvas_pictures_waiting", ""]


@contextlib.asynccontextmanager
async def calling(storm: Storm, callers: int) -> AsyncIterator[None]:
    """So many callers ask without a pause; at the end each has its last answer."""
    over = asyncio.Event()

    async def caller() -> None:
        while not over.is_set():
            await call(storm)

    async with asyncio.TaskGroup() as running:
        for _ in range(callers):
            running.create_task(caller())
        yield
        over.set()


async def call(storm: Storm) -> None:
    """One request of a live caller, and what is to be said of its answer."""
    chance = storm.chance
    (model,) = chance.choices(list(ASKED), list(ASKED.values()))
    kept = chance.random() < 0.1
    seed = chance.randrange(KEPT_SEEDS if kept else MARK - MOST_TOGETHER)
    if chance.random() < 0.7:
        request = storm.client.build_request("GET", f"/v1/models/{model}/image?seed={seed}")
    else:
        body = {"model": model, "seed": seed, "n": chance.randint(1, MOST_TOGETHER)}
        request = storm.client.build_request("POST", "/v1/images/generations", json=body)
    began = time.monotonic()
    answer = await answered(storm, request)
    if answer is None:
        return
    storm.answers[answer.status_code] += 1
    storm.slowest = max(storm.slowest, time.monotonic() - began)
    if fault := fault_of(storm, model, began, answer):
        storm.faults.append(f"{request.method} {request.url.path}: {fault}")
    elif answer.status_code == 200 and kept:
        keep(storm, answer)
    elif answer.status_code == 429:
        await asyncio.sleep(float(answer.headers["retry-after"]))


async def answered(storm: Storm, request: httpx.Request) -> httpx.Response | None:
    """The whole answer; None, and a fault, where it does not come or breaks off."""
    try:
        async with asyncio.timeout(HANG_SECONDS):
            return await storm.client.send(request)
    except TimeoutError:
        storm.faults.append(f"{request.method} {request.url.path}: no answer in {HANG_SECONDS} s")
    except httpx.HTTPError as error:
        storm.faults.append(f"{request.method} {request.url.path}: {error!r}")
    return None


def fault_of(storm: Storm, model: str, began: float, answer: httpx.Response) -> str | None:
    """What is wrong with an answer, given what is being done to the server."""
    status = answer.status_code
    if status == 200:
        return wrong_pictures(answer)
    if not is_problem(answer):
        return f"{status}, and no problem details: {answer.text[:200]}"
    allowed = {
        429: "retry-after" in answer.headers,
        500: model == "hot" and storm.injecting.explains(began),
        404: model == "victim" and storm.missing.explains(began),
    }
    return None if allowed.get(status) else f"{status}: {answer.json()['detail']}"


def is_problem(answer: httpx.Response) -> bool:
    """Whether an error is told in the one shape that errors have."""
    return answer.headers["content-type"] == PROBLEM and answer.json()["status"] == answer.status_code


def wrong_pictures(answer: httpx.Response) -> str | None:
    """Whether an answer holds what was asked for."""
    if answer.request.method == "GET":
        asked = int(answer.request.url.params["seed"])
        painted = json.loads(answer.headers["x-ganvas-recipe"])["seed"]
        is_png = answer.content.startswith(b"\x89PNG") and answer.content.endswith(b"IEND\xaeB`\x82")
        return None if is_png and painted == asked else f"seed {asked} was answered with {painted}, PNG: {is_png}"
    body = json.loads(answer.request.content)
    wanted = [body["seed"] + index for index in range(body["n"])]
    painted = [item["seed"] for item in answer.json()["data"]]
    return None if painted == wanted else f"seeds {wanted} were answered with {painted}"


def keep(storm: Storm, answer: httpx.Response) -> None:
    """Compare a picture with what the same recipe gave before."""
    recipe = answer.headers.get("x-ganvas-recipe")
    if recipe is not None and storm.files.setdefault(recipe, answer.content) != answer.content:
        storm.faults.append(f"other bytes than before: {recipe}")
