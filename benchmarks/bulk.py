"""How fast many pictures get into one zip, beside the batcher's limit, and what a kill in the middle costs.

A studio as `ganvas up` starts it draws a batch of the bundled model as a job, from its queue to the stored zip. The
limit is what the service's batcher gives 64 callers in one process, PNGs made but sent nowhere. Both take turns, so
that a busy machine slows both. Then a batch is drawn whose horse is killed with -9 in the middle.

    python benchmarks/bulk.py --pictures 10000 --rounds 2
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
from beside_training import Studio, running
from studio import BUNDLED

from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.recipe import Recipe
from app.serving.service import Asker, Painter
from models.checkpoint import read_meta

CALLERS = 64
WARM_SECONDS = 1.5
POLL_SECONDS = 0.02
GOAL = 0.85


async def limit(seconds: float) -> float:
    """Pictures a second of the batcher at its best."""
    with tempfile.TemporaryDirectory(prefix="ganvas-bulk-") as folder:
        settings = Settings(data=Path(folder), picture_cache_mib=0)
        storage = Storage(Path(folder) / "blobs")
        checkpoint = storage.put(BUNDLED)
        side = read_meta(BUNDLED).config.network.resolution
        painter = Painter(settings, storage)
        recipe = Recipe(model="emoji", checkpoint=checkpoint, seed=0, size=(side, side), **painter.runtime._asdict())
        seeds, done = count(), 0

        async def ask(number: int) -> None:
            nonlocal done
            while True:
                picture = recipe.model_copy(update={"seed": next(seeds)})
                await painter.picture(picture, asker=Asker(str(number)))
                done += 1

        callers = [asyncio.create_task(ask(number)) for number in range(CALLERS)]
        await asyncio.sleep(WARM_SECONDS)
        before, started = done, time.perf_counter()
        await asyncio.sleep(seconds)
        rate = (done - before) / (time.perf_counter() - started)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await painter.close()
        return rate


def order(studio: Studio, seeds: str) -> str:
    """Ask for a batch; the id of its job."""
    return str(studio.read("POST", "/v1/renders", json={"kind": "batch", "model": "emoji", "seeds": seeds})["id"])


def finish(studio: Studio, job: str) -> dict[str, Any]:
    """The job once it has ended; SystemExit where it did not succeed."""
    while (shown := studio.read("GET", f"/v1/jobs/{job}"))["status"] in {"queued", "running"}:
        time.sleep(POLL_SECONDS)
    if shown["status"] != "succeeded":
        raise SystemExit(f"The batch is {shown['status']}: {shown['message']}")
    return shown


def seconds_of(job: dict[str, Any]) -> float:
    """From the moment a worker took it to the stored zip."""
    started, finished = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (finished - started).total_seconds()


def faults(studio: Studio, job: str, first: int, pictures: int) -> list[str]:
    """What is wrong with the zip of a job; some of its files are compared with those of the service."""
    answer = studio.http.get(f"/v1/renders/{job}/file").raise_for_status()
    with ZipFile(BytesIO(answer.content)) as archive:
        names = Counter(name for name in archive.namelist() if name.endswith(".png"))
        wanted = {f"{seed:010d}.png" for seed in range(first, first + pictures)}
        wrong = [f"{name} is missing" for name in sorted(wanted - names.keys())]
        wrong += [f"{name} stands {times} times" for name, times in names.items() if times > 1 or name not in wanted]
        for seed in range(first, first + pictures, max(1, pictures // 20)):
            alone = studio.http.get("/v1/models/emoji/image", params={"seed": seed}).raise_for_status().content
            if f"{seed:010d}.png" in names and archive.read(f"{seed:010d}.png") != alone:
                wrong.append(f"{seed:010d}.png is not the picture of its URL")
    return wrong


def kill_in_the_middle(studio: Studio, job: str, pictures: int) -> None:
    """kill -9 the process that draws, once a third is done."""
    while (shown := studio.read("GET", f"/v1/jobs/{job}"))["progress"] < 1 / 3:
        if shown["status"] not in {"queued", "running"}:
            raise SystemExit(f"The batch of {pictures} ended before it could be killed; ask for more pictures.")
        time.sleep(POLL_SECONDS)
    supervisor = psutil.Process(studio.process.pid)
    worker = next(child for child in supervisor.children() if child.cmdline()[-3:] == ["-m", "worker", "render"])
    for horse in worker.children(recursive=True):
        horse.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 where a zip is not as it should be, or slower than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of the limit")
    options = parser.parse_args(arguments)
    ratios, wrong = [], []
    os.environ.setdefault("GANVAS_WORKER_NICENESS", "0")  # as the limit has it, whatever else runs on this machine
    with running() as studio:
        studio.wait_for_artwork()
        finish(studio, order(studio, "0-99"))  # what is imported and read once
        for turn in range(options.rounds):
            before = asyncio.run(limit(options.seconds / 2))
            job = finish(studio, order(studio, f"0-{options.pictures - 1}"))
            after = asyncio.run(limit(options.seconds / 2))
            rate, best = options.pictures / seconds_of(job), (before + after) / 2
            ratios.append(rate / best)
            wrong += faults(studio, job["id"], 0, options.pictures)
            print(f"round {turn + 1}: batch {rate:.0f} pictures/s, limit {best:.0f}: {rate / best:.2f}")
        killed = order(studio, f"1000000-{1_000_000 + options.pictures - 1}")
        kill_in_the_middle(studio, killed, options.pictures)
        shown = finish(studio, killed)
        wrong += faults(studio, killed, 1_000_000, options.pictures)
        print(f"killed once: {shown['attempts']} attempts, {shown['result']['pictures']} pictures")
    ratio = statistics.median(ratios)
    print(f"batch / limit: {ratio:.2f} (goal {GOAL}); {len(wrong)} faults")
    print("\n".join(wrong[:20]))
    return 1 if wrong or ratio < GOAL else 0


if __name__ == "__main__":
    sys.exit(main())
