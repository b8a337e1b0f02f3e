"""A studio under steady work for long holds no more memory, files or processes at its end than after its warm-up."""

import itertools
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from websockets.sync.client import connect

from app.core.db import Database
from app.core.settings import Settings
from app.core.storage import Storage
from tests.chaos.conftest import FULL, Figures
from tests.chaos.parts import MODEL, SMALL_GRID, wait_for
from tests.conftest import publish_tiny
from tests.studio import Studio, draw_shapes

SOAK_SECONDS = 1800.0 if FULL else 120.0
WARM_UP_SECONDS = 180.0 if FULL else 45.0  # loops are compiled, caches and the allocator's pools filled
JOB_SECONDS = 1.8  # one job each: 1,000 in half an hour
REQUEST_SECONDS = 0.1  # ten requests a second beside them
PREPARE_EVERY = 10  # jobs
TRAIN_EVERY = 50
LIVE_EVERY = 50  # requests
MAX_GROWTH = 0.05
POOLED_HANDLES = 8  # a pool of five database connections of two or three files each may fill late; a leak is hundreds
SAMPLES = 10
SAMPLE_SECONDS = 0.5
END_SECONDS = 900.0  # for what a busy machine did not keep up with
PICTURES = 6  # of a dataset that is only prepared


class Footprint(NamedTuple):
    """What a studio at rest holds."""

    memory: dict[str, float]  # by process, MiB that no other process shares
    handles: dict[str, int]
    processes: list[str]


class Load:
    """Steady work from two threads: jobs of every kind, and requests of every kind."""

    def __init__(self, studio: Studio, dataset: str) -> None:
        self.jobs = 0
        self.answers: Counter[int] = Counter()
        self._studio = studio
        self._dataset = dataset
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(JOB_SECONDS, self._order)),
            threading.Thread(target=self._repeat, args=(REQUEST_SECONDS, self._request)),
        ]
        for thread in self._threads:
            thread.start()

    def _repeat(self, seconds: float, do: Callable[[int], None]) -> None:
        began = time.monotonic()
        for number in itertools.count(1):
            do(number)
            if self._stopped.wait(max(0.0, began + number * seconds - time.monotonic())):
                return

    def _order(self, number: int) -> None:
        client = self._studio.client
        if number % TRAIN_EVERY == 0:
            self._studio.start_training(self._dataset, minutes=0.05, name=f"soaked-{time.time_ns()}")
        elif number % PREPARE_EVERY == 0:
            files = {"files": ("shapes.zip", draw_shapes(PICTURES), "application/zip")}
            answer = client.post("/v1/datasets", data={"name": "soaked", "resolution": "32"}, files=files)
            assert answer.status_code == 201, answer.text
        else:
            answer = client.post("/v1/renders", json=SMALL_GRID)
            assert answer.status_code == 202, answer.text
        self.jobs += 1

    def _request(self, number: int) -> None:
        client = self._studio.client
        if number % LIVE_EVERY == 0:
            url = f"ws://127.0.0.1:{self._studio.port}/v1/models/{MODEL}/live"
            with connect(url, proxy=None) as live:
                live.send('{"seed": 1}')
                live.recv(timeout=30)
            return
        if number % 7 == 0:
            body = {"prompt": "", "model": MODEL, "n": 2, "seed": number}
            answer = client.post("/v1/images/generations", json=body)
        elif number % 5 == 0:
            answer = client.get("/v1/jobs?limit=20")
        else:
            answer = client.get(f"/v1/models/{MODEL}/image?seed={number}")
        self.answers[answer.status_code] += 1

    def leave(self) -> None:
        """No more, and wait until all of it has ended."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        unfinished = [f"/v1/jobs?status={status}&limit=1" for status in ("queued", "running")]
        client = self._studio.client
        wait_for(lambda: not any(client.get(path).json()["data"] for path in unfinished), END_SECONDS, "all has ended")


@pytest.fixture
def studio(tmp_path: Path, start_studio: Callable[..., Studio]) -> Iterator[Studio]:
    folder = tmp_path / "data"
    db = Database(Settings(data=folder).database)
    db.migrate()
    publish_tiny(db, Storage(folder / "blobs"), MODEL)
    db.close()
    return start_studio(
        folder, GANVAS_PICTURE_CACHE_MIB="1", GANVAS_MODEL_MEMORY_MIB="64", GANVAS_MAX_QUEUED_JOBS="2000"
    )


def soak(studio: Studio, dataset: str, seconds: float) -> Load:
    """Work for so long."""
    load = Load(studio, dataset)
    time.sleep(seconds)
    load.leave()
    return load


def role(process: psutil.Process) -> str:
    """What a process of a studio is for."""
    command = process.cmdline()
    if "worker" in command:
        return f"worker {command[-1]}"
    return "api" if "api" in command else "redis" if "redis" in command[0] else Path(command[0]).name


def footprint(studio: Studio) -> Footprint:
    """What it holds at rest: the median of some seconds."""
    time.sleep(5 * SAMPLE_SECONDS)  # the last horse has gone
    processes = [psutil.Process(studio.process.pid), *studio.processes()]
    names = ["supervisor", *(role(process) for process in processes[1:])]
    memory: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(SAMPLES):
        for name, process in zip(names, processes, strict=True):
            memory[name].append(process.memory_full_info().uss / 2**20)
        time.sleep(SAMPLE_SECONDS)
    return Footprint(
        {name: statistics.median(values) for name, values in memory.items()},
        {name: process.num_fds() for name, process in zip(names, processes, strict=True)},
        sorted(names),
    )


def told(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Each process at the beginning and at the end."""
    return ", ".join(f"{name} {before[name]:.0f} to {after[name]:.0f}" for name in before)


def test_steady_work_makes_a_studio_hold_no_more_than_it_held(studio: Studio, figures: Figures) -> None:
    dataset = studio.upload()
    soak(studio, dataset, WARM_UP_SECONDS)
    before = footprint(studio)
    load = soak(studio, dataset, SOAK_SECONDS)
    after = footprint(studio)
    held, holds = sum(before.memory.values()), sum(after.memory.values())
    figures.add(
        f"soak of {SOAK_SECONDS / 60:.0f} minutes: {load.jobs} jobs, {load.answers.total()} requests; "
        f"memory {held:.0f} to {holds:.0f} MiB ({holds / held - 1:+.1%}): {told(before.memory, after.memory)}; "
        f"handles {told(before.handles, after.handles)}; {len(after.processes)} processes"
    )
    assert set(load.answers) == {200}
    assert after.processes == before.processes
    grown = {name: after.handles[name] - count for name, count in before.handles.items()}
    assert max(grown.values()) <= POOLED_HANDLES, grown
    assert holds <= held * (1 + MAX_GROWTH), told(before.memory, after.memory)
