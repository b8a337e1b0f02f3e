"""The limit: forward and encode in a plain loop, without a server. Prints JSON.

python benchmarks/peers/bare.py CHECKPOINT --seconds 5
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier

import numpy as np
import torch
from numpy.typing import NDArray
from pictures import LARGEST_BATCH, Pictures

Encode = Callable[[list[int], NDArray[np.uint8]], Future[None] | None]  # of one batch, here or elsewhere


def rate(pictures: Pictures, seconds: float, *, painters: int, threads: int, encoders: int) -> float:
    """Pictures a second of so many loops side by side, each with passes of so many threads.

    encoders: threads of their own for the files, which are made while the next pass runs; 0 makes them in the loops.
    """
    pool = ThreadPoolExecutor(max(1, encoders))

    def encode(seeds: list[int], pixels: NDArray[np.uint8]) -> None:
        for seed, picture in zip(seeds, pixels, strict=True):
            pictures.file(seed, picture)

    def elsewhere(seeds: list[int], pixels: NDArray[np.uint8]) -> list[Future[None]]:
        return [pool.submit(encode, seeds[part::encoders], pixels[part::encoders]) for part in range(encoders)]

    ready = Barrier(painters)

    def loop(painter: int) -> float:
        torch.set_num_threads(threads)
        seeds = count(painter * 10_000_000)
        pictures.paint([next(seeds) for _ in range(LARGEST_BATCH)])
        ready.wait()
        painted, encoding = 0, list[Future[None]]()
        started = now = time.perf_counter()
        while now < started + seconds:
            batch = [next(seeds) for _ in range(LARGEST_BATCH)]
            pixels = pictures.paint(batch)
            for part in encoding:
                part.result()
            if encoders:
                encoding = elsewhere(batch, pixels)
            else:
                encode(batch, pixels)
            painted += len(batch)
            now = time.perf_counter()
        for part in encoding:
            part.result()
        return painted / (time.perf_counter() - started)

    with pool, ThreadPoolExecutor(painters) as loops:
        return sum(loops.map(loop, range(painters)))


def lone(pictures: Pictures, seconds: float, threads: int) -> float:
    """Median milliseconds of one picture after the other."""

    def loop() -> float:
        torch.set_num_threads(threads)
        pictures.files([0])
        milliseconds = []
        seeds = count(1)
        started = now = time.perf_counter()
        while now < started + seconds:
            asked = now
            pictures.files([next(seeds)])
            now = time.perf_counter()
            milliseconds.append(1e3 * (now - asked))
        return statistics.median(milliseconds)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(loop).result()


def main() -> None:
    """Measure each way that the cores can share the work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way")
    given = parser.parse_args()
    pictures = Pictures(given.checkpoint)
    cores = torch.get_num_threads()
    ways = {
        f"{cores} passes side by side, each in one thread": {"painters": cores, "threads": 1, "encoders": 0},
        f"the same, and {cores} threads that encode": {"painters": cores, "threads": 1, "encoders": cores},
        f"one pass at a time in {cores} threads": {"painters": 1, "threads": cores, "encoders": 0},
        f"one pass at a time in one thread, and {cores} that encode": {"painters": 1, "threads": 1, "encoders": cores},
    }
    rates = {way: rate(pictures, given.seconds, **shares) for way, shares in ways.items()}
    lone_ms = {f"{threads} threads": lone(pictures, given.seconds, threads) for threads in sorted({1, cores})}
    where = f"{cores} threads of {pictures.runtime.device} in {pictures.runtime.dtype}, torch {torch.__version__}"
    print(json.dumps({"rates": rates, "lone_ms": lone_ms, "where": where}))


if __name__ == "__main__":
    main()
