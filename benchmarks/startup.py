"""How long a start takes: the command's help, and `ganvas api` from the start of its process to its first picture.

Everything is set against `python -c 'import torch'`, which no server that paints with torch can be quicker than. Wall
times are those an artist waits; on a machine that does something else as well, processor times tell more.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import httpx
import psutil
import studio

HELP_SECONDS = 0.5
START_SECONDS = 120
MODEL = "bench"
COMMANDS = {
    "import torch": (sys.executable, "-c", "import torch"),
    "import app.main": (sys.executable, "-c", "import app.main"),
    "ganvas --help": (sys.executable, "-m", "app.cli", "--help"),
}


@dataclass(frozen=True)
class Start:
    """One start of a server: seconds since its process began."""

    listening: float  # /livez is answered
    first_picture: float  # its file is here
    processor: float  # seconds that took of one
    second_picture: float  # by itself: from asking to the file


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command that runs to its end."""
    before, started = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=studio.ROOT, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start(folder: Path) -> Start:
    """Start a server on the studio in a folder, ask it for two pictures, and stop it.

    Its socket listens before it does, so that requests wait there for it and nothing has to be asked twice.
    """
    settings = {"GANVAS_DATA": str(folder), "GANVAS_IMPORT_SAMPLES": "false"}
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [*studio.API, "--fd", str(listener.fileno())]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=studio.ROOT, env=os.environ | settings, pass_fds=(listener.fileno(),))
    try:
        with httpx.Client(base_url=address, timeout=START_SECONDS) as client:
            client.get("/livez").raise_for_status()
            listening = time.perf_counter()
            client.get(f"/v1/models/{MODEL}/image?seed=1").raise_for_status()
            first = time.perf_counter()
            used = psutil.Process(process.pid).cpu_times()
            client.get(f"/v1/models/{MODEL}/image?seed=2").raise_for_status()
            second = time.perf_counter()
    finally:
        process.terminate()
        process.wait()
    return Start(listening - started, first - started, used.user + used.system, second - first)


def main() -> None:
    """Print the table; exit status 1 where help takes longer than wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    commands: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    starts: list[Start] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        studio.publish(folder, MODEL, studio.BUNDLED.read_bytes())
        for _ in range(options.rounds):  # in turns, so that whatever else the machine does meets all of them
            for command, arguments in COMMANDS.items():
                commands[command].append(timed(arguments))
            starts.append(start(folder))

    bare = min(wall for wall, _ in commands["import torch"])
    for command, times in commands.items():
        wall, processor = (min(part) for part in zip(*times, strict=True))
        print(f"{command:<28}{wall:7.2f} s   {processor:5.2f} s of processor")
    best = {field: min(getattr(one, field) for one in starts) for field in asdict(starts[0])}
    middle = statistics.median(one.first_picture for one in starts)
    print(f"{'ganvas api, listening':<28}{best['listening']:7.2f} s")
    processor = best["processor"]
    print(f"{'ganvas api, first picture':<28}{best['first_picture']:7.2f} s   {processor:5.2f} s of processor")
    print(f"{'  its median':<28}{middle:7.2f} s")
    print(f"{'its second picture':<28}{1e3 * best['second_picture']:7.1f} ms")
    print(f"First picture over import torch: {best['first_picture'] / bare:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"commands": commands, "starts": [asdict(one) for one in starts]}, indent=1))
    if min(wall for wall, _ in commands["ganvas --help"]) > HELP_SECONDS:
        raise SystemExit(f"ganvas --help takes more than {HELP_SECONDS} s.")


if __name__ == "__main__":
    main()
