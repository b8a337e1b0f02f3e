"""What a training costs those who ask for pictures on the same machine, and what they cost the training.

A studio as `ganvas up` starts it, in a temporary folder, serves its bundled model and trains the `tiny` preset on the
bundled artwork. Callers come at random moments, one picture of a new seed each (light), or several ask one after the
other without a pause (heavy). Both are measured without a training before and after they are with one. All of it comes
in slices of some seconds, and those in which something else on the machine was busy are left out and made up for.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import uvloop
from load import Driver, Load, Target, percentile

ROOT = Path(__file__).resolve().parents[1]
MODEL = "emoji"  # bundled, as is the artwork of that name
START_SECONDS = 180
SLICE_SECONDS = 10.0
CONNECTIONS = 16  # under light load: enough that nobody waits for one
QUIET_CORES = 0.2  # that others may take during a slice
PATIENCE = 8  # times the seconds that are wanted of a phase, before the machine is called too busy
WARM_TICKS = 2  # of a training: the first pays for what is only made once
WANTED_P95 = 3.0  # times its idle value, under light load
WANTED_SPEED = 0.5  # of the training's own, under light load


@dataclass
class Phase:
    """What was seen in the phases of one kind."""

    milliseconds: list[float] = field(default_factory=list)  # of a picture
    seconds: float = 0.0
    images_per_second: list[float] = field(default_factory=list)  # shown by the training, a number each few seconds
    left_out: float = 0.0  # seconds in which others were busy

    @property
    def p95(self) -> float:
        """Milliseconds within which 95 of 100 pictures came."""
        return percentile(self.milliseconds, 0.95)

    @property
    def speed(self) -> float:
        """Images a second, shown by the training; 0 where it did not get as far as to tell."""
        return statistics.mean(self.images_per_second or [0.0])


class Studio:
    """A running studio, and what is done with it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self.seeds = count(int(time.time()))
        self.phases: defaultdict[tuple[bool, str], Phase] = defaultdict(Phase)  # by training or not, and by load
        self.job: str | None = None

    def read(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """A JSON answer."""
        answer = self.http.request(method, path, **more)
        if answer.is_error:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        body: dict[str, Any] = answer.json()
        return body

    def wait_for_artwork(self) -> str:
        """The id of the bundled dataset, once it is ready."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for dataset in self.read("GET", "/v1/datasets")["data"]:
                if dataset["status"] == "ready":
                    return str(dataset["id"])
            time.sleep(0.5)
        raise SystemExit("The bundled artwork was not prepared in time.")

    def warm_up(self, *, rate: float, clients: int) -> None:
        """Load the checkpoint."""
        self._slice("heavy", rate, clients)

    def train(self, dataset: str) -> None:
        """Start a training that outlasts the measurement, and wait until it has found its pace."""
        body = {"dataset": dataset, "name": "beside", "preset": "tiny", "budget": {"minutes": 600}}
        self.job = str(self.read("POST", "/v1/training/jobs", json=body)["id"])
        deadline = time.monotonic() + START_SECONDS
        while len(self._ticks(0)[0]) < WARM_TICKS:
            if time.monotonic() > deadline:
                raise SystemExit("The training did not start in time.")
            time.sleep(1)

    def stop_training(self) -> None:
        """Cancel it, and wait until it has left."""
        self.read("POST", f"/v1/jobs/{self.job}/cancel")
        while self.read("GET", f"/v1/jobs/{self.job}")["status"] == "running":
            time.sleep(0.5)
        self.job = None

    def measure(self, load: str, seconds: float, *, rate: float, clients: int) -> None:
        """So many quiet seconds under this load: none, light or heavy."""
        phase = self.phases[self.job is not None, load]
        wanted = phase.seconds + seconds
        started = time.perf_counter()
        while phase.seconds < wanted:
            if time.perf_counter() - started > PATIENCE * seconds:
                raise SystemExit("This machine is busy with other things: close them, and measure again.")
            after = self._ticks(0)[1] if self.job else 0
            milliseconds, took, others = self._slice(load, rate, clients)
            if others > QUIET_CORES:
                phase.left_out += took
                continue
            phase.milliseconds += milliseconds
            phase.seconds += took
            if self.job:
                phase.images_per_second += self._ticks(after)[0][1:]  # the first began before this slice

    def _slice(self, load: str, rate: float, clients: int) -> tuple[list[float], float, float]:
        """Milliseconds of each picture, seconds that it took, and the cores that others took meanwhile."""
        machine, own = _machine_seconds(), _tree_seconds(self.process.pid)
        started = time.perf_counter()
        milliseconds: list[float] = []
        if load == "light":
            milliseconds = self._ask(Load(CONNECTIONS, SLICE_SECONDS, rate=rate))
        elif load == "heavy":
            milliseconds = self._ask(Load(clients, SLICE_SECONDS))
        else:
            time.sleep(SLICE_SECONDS)
        took = time.perf_counter() - started
        spent = _machine_seconds() - machine - (_tree_seconds(self.process.pid) - own)
        return milliseconds, took, spent / took

    def _ask(self, load: Load) -> list[float]:
        async def drive() -> Driver:
            driver = Driver(Target(self.port, f"/v1/models/{MODEL}/image?seed={{seed}}"), load, self.seeds)
            await driver.run()
            return driver

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            driver = runner.run(drive())
        if driver.errors:
            raise SystemExit(f"{driver.errors} of {driver.requests} pictures did not come.")
        return driver.milliseconds

    def _ticks(self, after: int) -> tuple[list[float], int]:
        """Images a second of each tick behind an event, and the number of the last event."""
        ticks: list[float] = []
        while True:
            events = self.read("GET", f"/v1/jobs/{self.job}/events", params={"after": after, "limit": 200})["data"]
            if not events:
                return ticks, after
            after = int(events[-1]["id"])
            ticks += [event["data"]["images_per_second"] for event in events if event["type"] == "tick"]


def _machine_seconds() -> float:
    """Processor seconds this machine has spent on anything, all cores together; Linux."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _tree_seconds(root: int) -> float:
    """Processor seconds of a process and of all below it, and of this one."""
    parents, spent = {}, {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(") ")[2].split()
        except OSError:  # it has left
            continue
        parents[int(place.parent.name)] = int(fields[1])
        spent[int(place.parent.name)] = sum(map(int, fields[11:15]))  # with its children that have left
    ours, total = {root, os.getpid()}, 0
    for pid, ticks in spent.items():
        above = pid
        while above not in ours and above:
            above = parents.get(above, 0)
        total += ticks if above in ours else 0
    return total / os.sysconf("SC_CLK_TCK")


@contextmanager
def running() -> Iterator[Studio]:
    """`ganvas up` in a folder of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ganvas-beside-") as folder:
        own = {"GANVAS_DATA": folder, "GANVAS_PORT": str(port), "GANVAS_LOG_LEVEL": "warning"}
        command = [sys.executable, "-m", "app.cli", "up"]
        process = subprocess.Popen(command, env=os.environ | own, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            studio = Studio(process, port)
            _wait_until_ready(studio)
            yield studio
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _wait_until_ready(studio: Studio) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and studio.process.poll() is None:
        try:
            if studio.http.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit("The studio did not start; what it said is above.")


def measure(seconds: float, *, rounds: int, rate: float, clients: int) -> dict[tuple[bool, str], Phase]:
    """Every phase, one after the other."""
    loads = {"rate": rate, "clients": clients}
    with running() as studio:
        dataset = studio.wait_for_artwork()
        studio.warm_up(**loads)
        for load in ("light", "heavy"):
            studio.measure(load, seconds, **loads)
        studio.train(dataset)
        for _ in range(rounds):
            for load in ("none", "light", "none", "heavy"):
                studio.measure(load, seconds / 2 if load == "none" else seconds, **loads)
        studio.stop_training()
        for load in ("light", "heavy"):
            studio.measure(load, seconds, **loads)
    return dict(studio.phases)


def report(phases: dict[tuple[bool, str], Phase]) -> bool:
    """Print the figures and the ratios; whether they are as wanted."""
    print(f"{'load':8}{'training':10}{'p50 ms':>8}{'p95 ms':>8}{'pictures/s':>12}{'images/s':>10}{'left out':>10}")
    for (training, load), phase in sorted(phases.items()):
        row = f"{load:8}{'yes' if training else 'no':10}"
        if phase.milliseconds:
            row += f"{percentile(phase.milliseconds, 0.5):8.1f}{phase.p95:8.1f}"
            row += f"{len(phase.milliseconds) / phase.seconds:12.1f}"
        else:
            row += " " * 28
        row += f"{phase.speed:10.1f}" if training else " " * 10
        print(f"{row}{phase.left_out:8.0f} s")
    alone = phases[True, "none"].speed
    slower, kept = {}, {}
    for load in ("light", "heavy"):
        slower[load] = phases[True, load].p95 / phases[False, load].p95
        kept[load] = phases[True, load].speed / alone
    print(f"p95 beside a training, light load: {slower['light']:.2f} times idle (wanted: at most {WANTED_P95})")
    print(f"Training's speed, light load: {kept['light']:.2f} of its own (wanted: at least {WANTED_SPEED})")
    print(f"Heavy load, for information: p95 {slower['heavy']:.2f} times idle, training's speed {kept['heavy']:.2f}")
    return slower["light"] <= WANTED_P95 and kept["light"] >= WANTED_SPEED


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure and report; 1 where it is not as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each phase under load; default 60")
    parser.add_argument("--rounds", type=int, default=2, help="of the phases with a training; default 2")
    parser.add_argument("--rate", type=float, default=2.0, help="callers a second, light load; default 2")
    parser.add_argument("--clients", type=int, default=4, help="at once, heavy load; default 4")
    parser.add_argument("--json", action="store_true", help="print everything seen besides")
    asked = parser.parse_args(arguments)
    phases = measure(asked.seconds, rounds=asked.rounds, rate=asked.rate, clients=asked.clients)
    if asked.json:
        print(json.dumps({f"{load}, {training}": vars(phase) for (training, load), phase in phases.items()}))
    return 0 if report(phases) else 1


if __name__ == "__main__":
    sys.exit(main())
