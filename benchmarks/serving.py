"""Ganvas beside LitServe, BentoML and a plain FastAPI endpoint: the same pictures under the same load.

Each serves the same network and weights as PNG, painted and encoded by the same code, so that only the serving differs.
Heats find the configurations of each peer that may be its best under some load: batches, windows, threads, workers.
Then, in every round, each server is started, warmed, driven by load.py with the same closed and open loops, and stopped
before the next one starts; so is the bare loop that sets the limit. The cores are shared by server and clients, as they
are on an artist's own machine. Figures are medians over the rounds; on a shared machine only ratios mean something.
Both models take about an hour on two cores.

LitServe and BentoML live in an environment of their own (make .venv-peers/installed); without it they are left out.
"""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

import serving_report as report
import studio
from load import Load, Measured, Target
from serving_report import Bare, Row

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
RESULTS = HERE / "results" / "serving.json"
MODEL = "bench"
MODELS = ("64 px", "256 px")
CLIENTS = (1, 4, 16, 64)
HEAT_CLIENTS = (1, 16, 64)
CORES = len(os.sched_getaffinity(0))
SHARINGS = {  # of the cores, by the options of the peers' programs; torch itself takes a thread a core in every pass
    "torch's threads": (),
    "1 thread": ("--threads", "1"),
    f"{CORES} workers of 1 thread": ("--threads", "1", "--workers", str(CORES)),
}
OPEN_SHARES = (0.3, 0.6)  # of the limit
OPEN_CLIENTS = 64  # connections
START_SECONDS, STOP_SECONDS = 180, 15
WARM_SECONDS = 3.0  # after a start; BentoML's batcher takes a dozen requests to learn its model's times
SETTLE_SECONDS = 0.5  # before each measurement
SEEDS = count(0, 1_000_000)  # no picture is asked for twice, so that no cache can answer


@dataclass(frozen=True)
class Server:
    """One of the servers, in one configuration."""

    name: str
    how: str
    program: str  # in benchmarks/peers; "" is Ganvas itself
    path: str
    body: str = ""
    options: tuple[str, ...] = ()
    package: str = ""  # that it needs and that may be missing


def peers() -> Iterator[Server]:
    """Each peer in every configuration that might suit it; which does is found out in the heats."""
    for sharing, options in SHARINGS.items():
        for batch, milliseconds in ((1, 0), (16, 0), (16, 2), (16, 10)):
            how = f"batch {batch}, {milliseconds} ms, {sharing}" if batch > 1 else f"batch 1, {sharing}"
            own = ("--batch", str(batch), "--window", str(milliseconds / 1e3), *options)
            yield Server("LitServe", how, "litserve_server.py", "/predict", '{"seed": {seed}}', own, "litserve")
        yield Server("BentoML", sharing, "bentoml_service.py", "/image", '{"seeds": [{seed}]}', options, "bentoml")
        if "--workers" not in options:  # its thread pool has all cores at work anyway
            yield Server("FastAPI", sharing, "fastapi_server.py", "/image?seed={seed}", options=options)


SERVERS = (Server(report.OURS, "", "", f"/v1/models/{MODEL}/image?seed={{seed}}"), *peers())


def versions(python: Path, servers: Sequence[Server]) -> dict[str, str]:
    """Version by package, as this interpreter has them; those that are not installed are not in it."""
    found = {}
    if not python.exists():
        return found
    for package in sorted({server.package for server in servers if server.package}):
        command = [str(python), "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            found[package] = asked.stdout.strip()
    return found


@contextmanager
def started(server: Server, python: Path, checkpoint: Path) -> Iterator[Target]:
    """A server process on this checkpoint that has answered its first picture; Ganvas's data lie beside the checkpoint.

    python: of the peers that need packages.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    folder = checkpoint.parent
    own = {"PYTHONPATH": str(ROOT), "GANVAS_DATA": str(folder), "GANVAS_PORT": str(port), "GANVAS_IMPORT_SAMPLES": "0"}
    command = [sys.executable, "-m", "app.cli", "api"]
    if server.program:
        program = str(HERE / "peers" / server.program)
        command = [str(python) if server.package else sys.executable, program, str(checkpoint), str(port)]
    target = Target(port, server.path, server.body)
    with (folder / "server.log").open("w+") as log:
        process = subprocess.Popen(
            [*command, *server.options],
            env=os.environ | own,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,  # its workers stop with it
        )
        try:
            if not _answers(target, process):
                log.seek(0)
                raise SystemExit(f"{log.read()[-4000:]}\n{server.name} ({server.how}) did not start.")
            yield target
        finally:
            _stop(process)


def _answers(target: Target, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            path, body = target.of(next(SEEDS))
            with closing(http.client.HTTPConnection("127.0.0.1", target.port, timeout=START_SECONDS)) as connection:
                connection.request("POST" if body else "GET", path, body or None, {"Content-Type": "application/json"})
                if connection.getresponse().status == http.client.OK:
                    return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def drive(target: Target, load: Load) -> Measured:
    """This load, from a process of its own."""
    flags = {"port": target.port, "path": target.path, "body": target.body, "first-seed": next(SEEDS)} | asdict(load)
    command = [sys.executable, str(HERE / "load.py"), *(f"--{name}={value}" for name, value in flags.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def bare(checkpoint: Path, seconds: float) -> Bare:
    """The limit and the lone time, from a process of its own."""
    command = [sys.executable, str(HERE / "peers" / "bare.py"), str(checkpoint), f"--seconds={seconds}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=ROOT)
    return Bare(**json.loads(done.stdout))


class Contest:
    """All servers on all models, in turns."""

    def __init__(self, given: argparse.Namespace, servers: Sequence[Server], folder: Path) -> None:
        self.given = given
        self.servers = servers
        self.folder = folder
        self.figures = report.Figures({}, {}, [])

    def run(self) -> None:
        """Heats and rounds, each model's in a row; what is measured is kept after every turn."""
        for model in self.given.models:
            checkpoint = self._prepare(model)
            limit = self._limit(model, checkpoint)
            rates = [share * limit for share in self.given.open]
            servers = self._heats(model, checkpoint) if self.given.heat else self.servers
            loads = [Load(clients, self.given.seconds, SETTLE_SECONDS) for clients in self.given.clients]
            loads += [Load(OPEN_CLIENTS, self.given.seconds, SETTLE_SECONDS, float(f"{rate:.2g}")) for rate in rates]
            for number in range(self.given.rounds):
                if number:
                    self._limit(model, checkpoint)
                turn = number % len(servers)  # so that nobody is always the first
                for server in (*servers[turn:], *servers[:turn]):
                    self.figures.rows.extend(self._turn(model, server, checkpoint, loads))
                    self.figures.keep(self.given.results)

    def _heats(self, model: str, checkpoint: Path) -> list[Server]:
        """Us, and of each peer the configurations that may be its best under some load."""
        loads = [Load(clients, self.given.heat, SETTLE_SECONDS) for clients in HEAT_CLIENTS]
        peers = [server for server in self.servers if server.program]
        print(f"{model}, heats of {len(peers)} configurations", flush=True)
        hopeful = report.hopeful([row for peer in peers for row in self._turn(model, peer, checkpoint, loads)])
        return [server for server in self.servers if not server.program or (server.name, server.how) in hopeful]

    def _prepare(self, model: str) -> Path:
        """The checkpoint of a model, in a file and in a studio."""
        folder = self.folder / model.partition(" ")[0]
        folder.mkdir()
        weights = studio.BUNDLED.read_bytes() if model == MODELS[0] else studio.untrained("few-shot", 256)
        studio.publish(folder, MODEL, weights)
        checkpoint = folder / "bench.safetensors"
        checkpoint.write_bytes(weights)
        return checkpoint

    def _limit(self, model: str, checkpoint: Path) -> float:
        rounds = self.figures.bare.setdefault(model, [])
        rounds.append(bare(checkpoint, self.given.seconds))
        print(f"{model}, bare: {rounds[-1]}", flush=True)
        return report.limit(rounds).rate

    def _turn(self, model: str, server: Server, checkpoint: Path, loads: Sequence[Load]) -> list[Row]:
        rows = []
        with started(server, self.given.peers, checkpoint) as target:
            drive(target, Load(16, WARM_SECONDS))
            for load in loads:
                rows.append(
                    Row(model, report.kind(load.rate), load.clients, server.name, server.how, drive(target, load))
                )
                print(report.line(rows[-1]), flush=True)
        return rows


def arguments() -> argparse.Namespace:
    """The command line."""

    def listed(text: str) -> list[str]:
        return text.split(",")

    names = sorted({server.name.lower() for server in SERVERS})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed, default=names, help=f"of {','.join(names)}")
    parser.add_argument("--models", type=listed, default=["64", "256"], help="of 64,256 (pixels)")
    parser.add_argument("--clients", type=listed, default=list(CLIENTS), help="of the closed loop, such as 1,16")
    parser.add_argument("--open", type=listed, default=list(OPEN_SHARES), help="shares of the limit; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--heat", type=float, default=2.0, help="seconds; 0: every configuration is in every round")
    parser.add_argument("--peers", type=Path, default=PEERS_PYTHON, help="interpreter that has the peers' packages")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures are kept")
    parser.add_argument("--again", action="store_true", help="measure nothing; report the figures kept there")
    parser.add_argument("--plot", type=Path, help="a PNG")
    parser.add_argument("--markdown", action="store_true", help="print the table as the docs have it")
    given = parser.parse_args()
    given.models = [f"{side} px" for side in given.models]
    given.clients = [int(clients) for clients in given.clients]
    given.open = [float(share) for share in given.open if float(share)]
    return given


def measure(given: argparse.Namespace) -> report.Figures:
    """Run the contest among those that are wanted and installed."""
    wanted = [server for server in SERVERS if server.name.lower() in given.only]
    installed = versions(given.peers, wanted)
    for package in sorted({server.package for server in wanted if server.package} - set(installed)):
        print(f"{package} is not installed (make .venv-peers/installed); it is left out.")
    servers = [server for server in wanted if not server.package or server.package in installed]
    with tempfile.TemporaryDirectory() as name:
        contest = Contest(given, servers, Path(name))
        contest.figures.versions.update(installed)
        contest.run()
    return contest.figures


def main() -> None:
    """Measure or read the figures, and report them."""
    given = arguments()
    figures = report.Figures.read(given.results) if given.again else measure(given)
    print(report.markdown(figures) if given.markdown else report.table(figures))
    for claim in report.claims(figures):
        print(claim)
    if given.plot:
        from serving_plot import plot

        plot(figures, given.plot)


if __name__ == "__main__":
    main()
