"""How much of the bare speed is left over HTTP: one picture a request, from one client and from many at once.

Bare is the loaded generator and the encoder in a plain loop, with one thread or one per core, whichever is quicker.
Over HTTP is a server process of its own, asked by a third process. All of it runs on this machine, in turns, so that
only ratios mean something. The cores are shared by server and clients, as they are on an artist's own machine.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "models" / "pretrained" / "emoji.safetensors"
MODEL = "bench"
CLIENTS = (1, 4, 16, 32, 64)
WANTED_SHARE = 0.60  # of the bare rate, with 32 clients
LONE_FACTOR, LONE_EXTRA_MS = 1.3, 3.0
START_SECONDS = 60


class Client(asyncio.Protocol):
    """One client on one connection: asks for a picture, and when it is here for the next one, until the deadline.

    Written on sockets, for a client library would take as much of the machine as the server does.
    """

    def __init__(self, seeds: Iterator[int], deadline: float, milliseconds: list[float]) -> None:
        self.seeds = seeds
        self.deadline = deadline
        self.milliseconds = milliseconds
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start asking."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        self.answer = bytearray()
        self.expected = 0
        self.started = time.perf_counter()
        path = f"/v1/models/{MODEL}/image?seed={next(self.seeds)}"
        self.transport.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Collect an answer; at its end, note its time and ask again."""
        self.answer += data
        if not self.expected and (head := self.answer.find(b"\r\n\r\n")) >= 0:
            assert self.answer.startswith(b"HTTP/1.1 200"), bytes(self.answer)
            length = bytes(self.answer[:head]).lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.expected = head + 4 + int(length)
        if not self.expected or len(self.answer) < self.expected:
            return
        now = time.perf_counter()
        self.milliseconds.append(1e3 * (now - self.started))
        if now < self.deadline:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, or the failure of this round."""
        if exc is None:
            self.finished.set_result(None)
        else:
            self.finished.set_exception(exc)


async def ask(port: int, clients: int, seconds: float, first_seed: int) -> dict[str, float]:
    """Pictures a second and the median milliseconds of one, with so many clients at once."""
    milliseconds: list[float] = []
    seeds = count(first_seed)
    started = time.perf_counter()
    running = []
    for _ in range(clients):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(seeds, started + seconds, milliseconds), "127.0.0.1", port
        )
        running.append(client.finished)
    await asyncio.gather(*running)
    rate = len(milliseconds) / (time.perf_counter() - started)
    return {"rate": rate, "milliseconds": statistics.median(milliseconds)}


def over_http(port: int, clients: int, seconds: float, first_seed: int) -> dict[str, float]:
    """ask(), in a process of its own."""
    command = [sys.executable, __file__, "--ask", str(port), str(clients), str(seconds), str(first_seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def bare(folder: Path, sha256: str) -> Callable[[int, int, float, int], dict[str, float]]:
    """A plain loop: (pictures at once, threads, seconds, first seed) -> rate and median milliseconds."""
    import torch

    from app.core.storage import Storage
    from app.serving.encode import encode
    from app.serving.loader import Loader
    from app.serving.recipe import Recipe

    loaded = Loader(Storage(folder / "blobs").path, device="cpu", budget_bytes=2**30, max_batch=32).get(sha256)
    side = loaded.meta.config.network.resolution

    def measure(batch: int, threads: int, seconds: float, first_seed: int) -> dict[str, float]:
        torch.set_num_threads(threads)
        loaded.render([Recipe(model=MODEL, checkpoint=sha256, seed=0, size=(side, side))] * batch)
        milliseconds = []
        seeds = count(first_seed)
        started = finished = time.perf_counter()
        while finished < started + seconds:
            asked = finished
            recipes = [
                Recipe(model=MODEL, checkpoint=sha256, seed=next(seeds), size=(side, side)) for _ in range(batch)
            ]
            for recipe, pixels in zip(recipes, loaded.render(recipes), strict=True):
                encode(pixels, output_format="png", recipe=recipe)
            finished = time.perf_counter()
            milliseconds.append(1e3 * (finished - asked))
        rate = batch * len(milliseconds) / (finished - started)
        return {"rate": rate, "milliseconds": statistics.median(milliseconds)}

    return measure


def publish(folder: Path, checkpoint: bytes) -> str:
    """Put a checkpoint into a studio's storage and catalogue; returns its sha256."""
    from app.core import catalogue
    from app.core.db import Database
    from app.core.settings import Settings
    from app.core.storage import Storage
    from models.checkpoint import read_meta

    network = read_meta(checkpoint).config.network
    shape = {name: getattr(network, name) for name in ("architecture", "resolution", "z_dim", "w_dim", "num_ws")}
    sha256 = Storage(folder / "blobs").put(checkpoint)
    db = Database(Settings(data=folder).database)
    db.migrate()
    with db.begin() as session:
        catalogue.publish(session, {"name": MODEL} | shape, sha256=sha256, kimg=0, bytes_=len(checkpoint), metrics={})
    db.close()
    return sha256


def untrained() -> bytes:
    """The checkpoint of a tiny generator that has learnt nothing: as quick as a trained one."""
    from models.checkpoint import CheckpointMeta, save_checkpoint
    from models.presets import preset
    from models.registry import build_generator

    config = preset("tiny", 64)
    return save_checkpoint(None, build_generator(config.network), CheckpointMeta(config=config, kimg=0, minutes=0))


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """A server process on this studio; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    own = {"GANVAS_DATA": str(folder), "GANVAS_PORT": str(port), "GANVAS_IMPORT_SAMPLES": "false"}
    server = subprocess.Popen([sys.executable, "-m", "app.cli", "api"], env=os.environ | own, cwd=ROOT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


def compare(checkpoint: Path, rounds: int, seconds: float) -> None:
    """Measure in turns and print the medians over the rounds."""
    threads = sorted({1, os.cpu_count() or 1})
    turns: dict[tuple[str, int, int], list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sha256 = publish(folder, checkpoint.read_bytes() if checkpoint.exists() else untrained())
        measure = bare(folder, sha256)
        with serving(folder) as port:
            over_http(port, 1, 0.5, 0)  # loads the checkpoint
            for turn in range(1, rounds + 1):
                first_seed = turn * 10_000_000
                for batch, number in product((1, 32), threads):
                    turns["bare", batch, number].append(measure(batch, number, seconds, first_seed))
                for clients in CLIENTS:
                    turns["http", clients, 0].append(over_http(port, clients, seconds, first_seed))
    report({row: {key: statistics.median(turn[key] for turn in of) for key in of[0]} for row, of in turns.items()})


def report(medians: dict[tuple[str, int, int], dict[str, float]]) -> None:
    """Print the table and the two ratios."""
    print(f"{'':28}{'pictures/s':>12}{'ms':>10}")
    for (kind, number, threads), measured in medians.items():
        label = f"bare, {number} at once, {threads} threads" if kind == "bare" else f"HTTP, {number} clients"
        print(f"{label:28}{measured['rate']:12.0f}{measured['milliseconds']:10.1f}")
    best = max(measured["rate"] for row, measured in medians.items() if row[:2] == ("bare", 32))
    share = medians["http", 32, 0]["rate"] / best
    print(f"32 clients over HTTP: {share:.2f} of the bare rate (wanted: at least {WANTED_SHARE:.2f})")
    alone = min(measured["milliseconds"] for row, measured in medians.items() if row[:2] == ("bare", 1))
    lone, limit = medians["http", 1, 0]["milliseconds"], LONE_FACTOR * alone + LONE_EXTRA_MS
    print(f"One request alone: {lone:.1f} ms, bare {alone:.1f} ms (wanted: at most {limit:.1f} ms)")


def main() -> None:
    """Read the arguments and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED, help="without the file, an untrained tiny of 64 px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--ask", nargs=4, metavar=("PORT", "CLIENTS", "SECONDS", "SEED"), help="be the clients")
    arguments = parser.parse_args()
    if arguments.ask:
        port, clients, seconds, seed = arguments.ask
        print(json.dumps(asyncio.run(ask(int(port), int(clients), float(seconds), int(seed)))))
    else:
        compare(arguments.checkpoint, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
