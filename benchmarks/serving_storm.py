"""Storms a server, then loads it for minutes: no caller without an answer, nothing that hangs, nothing that grows.

The storm: requests that are dropped at random moments (in their head, in their body, while they wait, in the middle of
their answer), exceptions raised in forward passes, a model that is deleted and published anew, another one that is
promoted to and fro, all of it while ordinary callers ask for pictures of more models than the memory holds. Then the
same callers for minutes, with a little of that storm, while memory, threads and open files are watched.
"""

import argparse
import asyncio
import contextlib
import json
import random
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import psutil
import studio
from callers import ASKED, HANG_SECONDS, MARK, Storm, answered, calling, is_problem

INJECTED = (RuntimeError, MemoryError, StopIteration)  # the last is the one that a future of asyncio does not take
DROPPED_TOGETHER = 16
DROPPERS = 40  # at once
SETTINGS: dict[str, str | int] = {
    "model_memory_mib": 16,
    "picture_cache_mib": 1,
    "log_level": "error",
}  # least memory: models come and go

ALLOWED_GROWTH = 0.05
JUDGED_MINUTES = 3.0  # a shorter run says nothing of memory
POOLS = 32  # threads and files that pools may open later on; a leak of one a dropped request is more
SHOWN = 10  # faults
BROKEN = ("never retrieved", "Exception in callback", "Exception in thread", "Exception in ASGI", "but it is pending")


@dataclass(frozen=True)
class Sample:
    """The server's process at one moment."""

    mebibytes: float
    threads: int
    files: int


def main() -> int:
    """Storm, load, watch, and print; 1 where a caller was left without an answer, something hung or grew."""
    args = arguments()
    if args.serve:
        serve(args.fd)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spare = checkpoints(folder)
        command = (sys.executable, __file__, "--serve")
        with studio.serving(folder, command, **SETTINGS) as server:
            return asyncio.run(run(args, server, folder, spare))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of load after the storm; default 10")
    parser.add_argument("--drops", type=int, default=1000, help="requests dropped in the storm; default 1000")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default 0")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def serve(fd: int) -> None:
    """Be the server: Ganvas as it is, but for passes that raise when they are told to."""
    from app.cli import main as ganvas
    from app.serving.paint import LoadedGenerator

    render = LoadedGenerator.render

    def render_or_raise(self: LoadedGenerator, recipes: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        for recipe in recipes:
            if recipe.seed >= MARK:
                raise INJECTED[recipe.seed % len(INJECTED)]("injected")
        return render(self, recipes, *args, **kwargs)

    LoadedGenerator.render = render_or_raise  # type: ignore[method-assign]
    sys.argv = ["ganvas", "api", "--fd", str(fd)]
    ganvas()


def checkpoints(folder: Path) -> list[bytes]:
    """Publish the models; returns the weights that take turns as those of `victim`."""
    tiny = [studio.untrained("tiny", 64, seed=seed) for seed in range(5)]
    studio.publish(folder, "hot", tiny[0])
    studio.publish(folder, "swap", tiny[1])
    studio.publish(folder, "swap", tiny[2], promote=False)
    studio.publish(folder, "victim", tiny[3])
    studio.publish(folder, "cold", studio.untrained("classic", 32))
    studio.publish(folder, "large", studio.untrained("few-shot", 64))
    return [tiny[4], tiny[3]]


async def run(args: argparse.Namespace, server: studio.Server, folder: Path, spare: Sequence[bytes]) -> int:
    """All phases, and the report."""
    chance = random.Random(args.seed)  # noqa: S311 - moments, not secrets
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=None, limits=limits) as client:  # noqa: S113 - see call()
        storm = Storm(server, folder, chance, client)
        async with calling(storm, args.callers):
            await asyncio.sleep(min(10, 10 * args.minutes))  # models are loaded and pools filled
        before = await settled(storm)
        began = time.perf_counter()
        async with calling(storm, args.callers):
            await rage(storm, args.drops, spare)
        print(f"Storm: {dict(storm.done)} in {time.perf_counter() - began:.0f} s", flush=True)
        after = await settled(storm)
        async with calling(storm, args.callers):
            samples = await watch(storm, 60 * args.minutes)
        end = await settled(storm)
    return report(args, storm, samples, (before, after, end))


async def rage(storm: Storm, drops: int, spare: Sequence[bytes]) -> None:
    """The storm: so many dropped requests, and of the rest in proportion."""
    places = asyncio.Semaphore(DROPPERS)
    async with asyncio.TaskGroup() as running:
        for _ in range(drops):
            running.create_task(drop(storm, places))
        running.create_task(inject(storm, max(2 * len(INJECTED), drops // 20)))
        running.create_task(replace(storm, max(2, drops // 200), spare))
        running.create_task(promote(storm, max(2, drops // 100)))


async def drop(storm: Storm, places: asyncio.Semaphore) -> None:
    """Open a request and leave at a random moment, politely or not."""
    chance = storm.chance
    async with places:
        reader, writer = await asyncio.open_connection("127.0.0.1", storm.server.port)
        request = some_request(chance)
        part = chance.choice((chance.randrange(len(request)), len(request), len(request)))
        writer.write(request[:part])
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(chance.expovariate(5)):
                await reader.read(chance.randint(1, 4000))  # less than a picture
        if chance.random() < 0.5:  # without a word: a reset in place of an orderly end
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        storm.done["dropped"] += 1


def some_request(chance: random.Random) -> bytes:
    """A request as it goes over the wire: a picture, many, or a stream of them."""
    model = chance.choice(list(ASKED))
    seed = chance.randrange(MARK - DROPPED_TOGETHER)
    host = "Host: localhost"
    if chance.random() < 0.3:
        return f"GET /v1/models/{model}/image?seed={seed} HTTP/1.1\r\n{host}\r\n\r\n".encode()
    wish = {"model": model, "seed": seed, "n": chance.randint(1, DROPPED_TOGETHER), "stream": chance.random() < 0.3}
    body = json.dumps(wish)
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST /v1/images/generations HTTP/1.1\r\n{host}\r\n{kind}\r\n\r\n{body}".encode()


async def inject(storm: Storm, times: int) -> None:
    """Ask for pictures whose pass raises; they must be told so."""
    for _ in range(times):
        storm.injecting.begin()
        request = storm.client.build_request("GET", f"/v1/models/hot/image?seed={next(storm.marked)}")
        answer = await answered(storm, request)
        storm.injecting.end()
        if answer is not None and answer.status_code == 500 and is_problem(answer):
            storm.done["injected"] += 1
        elif answer is not None and answer.status_code != 429:
            storm.faults.append(f"A pass that raises was answered with {answer.status_code}: {answer.text[:200]}")
        await asyncio.sleep(storm.chance.uniform(0, 0.4))


async def replace(storm: Storm, times: int, spare: Sequence[bytes]) -> None:
    """Delete a model that is being asked for, and publish it anew with other weights."""
    for _, weights in zip(range(times), cycle(spare), strict=False):
        storm.missing.begin()
        gone = await answered(storm, storm.client.build_request("DELETE", "/v1/models/victim"))
        if gone is not None and gone.status_code != 200:
            storm.faults.append(f"DELETE was answered with {gone.status_code}: {gone.text[:200]}")
        await expect(storm, 404)
        await asyncio.sleep(storm.chance.uniform(0, 1))
        await asyncio.to_thread(studio.publish, storm.folder, "victim", weights)
        storm.missing.end()
        await expect(storm, 200)
        storm.done["deleted"] += 1
        await asyncio.sleep(storm.chance.uniform(0, 2))


async def expect(storm: Storm, status: int) -> None:
    """A fault unless `victim` soon answers so."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        answer = await answered(storm, storm.client.build_request("GET", "/v1/models/victim/image?seed=0"))
        if answer is not None and answer.status_code == status:
            return
        await asyncio.sleep(0.1)
    storm.faults.append(f"The model did not come to answer {status}")


async def promote(storm: Storm, times: int) -> None:
    """Let a model's name mean one and the other of its checkpoints in turn."""
    for _ in range(times):
        shown = await answered(storm, storm.client.build_request("GET", "/v1/models/swap"))
        if shown is not None and shown.status_code == 200:
            model = shown.json()
            (other,) = {item["checkpoint"] for item in model["checkpoints"]} - {model["checkpoint"]}
            body = {"checkpoint": other}
            shown = await answered(storm, storm.client.build_request("POST", "/v1/models/swap/promote", json=body))
        if shown is not None and shown.status_code != 200:
            storm.faults.append(f"promote was answered with {shown.status_code}: {shown.text[:200]}")
        storm.done["promoted"] += 1
        await asyncio.sleep(storm.chance.uniform(0, 1))


async def settled(storm: Storm) -> Sample:
    """The server with nobody asking; a fault unless the last picture is soon forgotten."""
    deadline = time.monotonic() + HANG_SECONDS
    while (waiting := await asyncio.to_thread(storm.waiting)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    if waiting:
        storm.faults.append(f"{waiting:.0f} pictures wait, and nobody asked for any")
    return sample(storm)


def sample(storm: Storm) -> Sample:
    """The server's process now."""
    process = psutil.Process(storm.server.process.pid)
    return Sample(process.memory_info().rss / 2**20, process.num_threads(), process.num_fds())


async def watch(storm: Storm, seconds: float) -> list[Sample]:
    """A sample a second, and meanwhile a drizzle of what the storm had."""
    samples, places = [], asyncio.Semaphore(DROPPERS)
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        samples.append(sample(storm))
        if len(samples) % 10 == 5:
            await inject(storm, 1)
            await promote(storm, 1)
        await drop(storm, places)
        await asyncio.sleep(1)
    return samples


def report(args: argparse.Namespace, storm: Storm, samples: Sequence[Sample], settled_: Sequence[Sample]) -> int:
    """Print the figures; the exit status."""
    faults = list(storm.faults)
    window = max(1, round(len(samples) / max(args.minutes, 4)))  # a minute; of a short run a quarter
    early, late = (
        statistics.median(one.mebibytes for one in part) for part in (samples[window : 2 * window], samples[-window:])
    )
    growth = late / early - 1
    before, after, end = settled_
    print(f"In all: {dict(storm.done)}")
    print(f"Live callers: {sum(storm.answers.values()):,} answers {dict(sorted(storm.answers.items()))}")
    print(f"  the slowest after {storm.slowest:.1f} s; {len(storm.files)} recipes asked for again")
    for name, value in (("before the storm", before), ("after the storm", after), ("at the end", end)):
        print(f"  {name:16}: {value.mebibytes:.0f} MiB, {value.threads} threads, {value.files} open files")
    print(f"Memory under load, last minute against the second: {growth:+.1%}")
    if args.minutes >= JUDGED_MINUTES and growth > ALLOWED_GROWTH:
        faults.append(f"Memory grew by {growth:.1%}")
    if end.threads > before.threads + POOLS or end.files > before.files + POOLS:
        faults.append(f"Threads or open files grew: {before} to {end}")
    said = storm.server.log.read_text().splitlines()
    faults += [line[:300] for line in said if any(words in line for words in BROKEN)]
    for fault, times in Counter(faults).most_common(SHOWN):
        print(f"{times} x {fault}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
