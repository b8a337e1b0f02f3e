"""Do loops close? The step from the last frame to the first beside those between neighbours, as each file is read back.

A studio as `ganvas up` starts it draws loops of the bundled model on every path, in every container; frames, frames a
second and size are read back too.

    python benchmarks/loops.py --size 256x256
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from beside_training import Studio, running
from numpy.typing import NDArray

from app.serving.films.reading import decoded_frames, facts

PATHS: dict[str, dict[str, Any]] = {
    "slerp": {"path": "slerp"},
    "slerp, even": {"path": "slerp", "easing": "linear"},
    "linear in z": {"path": "linear", "space": "z"},
    "linear in w": {"path": "linear", "space": "w"},
    "spline": {"path": "spline"},
    "noise": {"path": "noise", "radius": 1.0},
}
FORMATS = ("mp4", "webm", "webp", "gif", "zip")
SEEDS = (1, 36, 42)
POLL_SECONDS = 0.05


def loop(studio: Studio, body: dict[str, Any]) -> tuple[bytes, float]:
    """The file of a loop, and the seconds it took from its being asked for."""
    started = time.perf_counter()
    job = str(studio.read("POST", "/v1/renders", json={"kind": "loop", "model": "emoji"} | body)["id"])
    while (shown := studio.read("GET", f"/v1/jobs/{job}"))["status"] in {"queued", "running"}:
        time.sleep(POLL_SECONDS)
    if shown["status"] != "succeeded":
        raise SystemExit(f"{body}: {shown['message']}")
    took = time.perf_counter() - started
    return studio.http.get(f"/v1/renders/{job}/file").raise_for_status().content, took


def steps(frames: Sequence[NDArray[np.uint8]]) -> tuple[float, float]:
    """From the last frame to the first, and the median between neighbours: mean differences, levels of 255."""
    pictures = [frame[:, :, :3].astype(int) for frame in frames]
    between = [float(np.abs(a - b).mean()) for a, b in pairwise(pictures)]
    return float(np.abs(pictures[-1] - pictures[0]).mean()), statistics.median(between)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a loop; 1 where one does not close, or is not what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--fps", type=int, default=24)
    options = parser.parse_args(arguments)
    width, height = map(int, options.size.split("x"))
    wanted, open_ = options.seconds * options.fps, 0
    with running() as studio:
        studio.wait_for_artwork()
        for name, path in PATHS.items():
            for film_format in FORMATS:
                seeds = list(SEEDS[:1] if name == "noise" else SEEDS)
                body = path | {"seeds": seeds, "format": film_format, "size": options.size}
                file, took = loop(studio, body | {"seconds": options.seconds, "fps": options.fps})
                read, (last, median) = facts(file), steps(list(decoded_frames(file)))
                as_asked = (read.frames, read.size, read.fps or options.fps) == (wanted, (width, height), options.fps)
                closes = last <= median
                open_ += not (closes and as_asked)
                verdict = ("closes" if closes else "STAYS OPEN") + ("" if as_asked else f", NOT AS ASKED: {read}")
                print(
                    f"{name:12} {film_format:5} {last:5.2f} to first, {median:5.2f} between; {took:4.1f} s; {verdict}"
                )
    print(f"{len(PATHS) * len(FORMATS) - open_} of {len(PATHS) * len(FORMATS)} close and are what was asked for")
    return 1 if open_ else 0


if __name__ == "__main__":
    sys.exit(main())
