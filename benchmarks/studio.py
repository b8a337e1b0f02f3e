"""A studio to try things on: models in a temporary folder, a server process of its own, and what its metrics say."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from prometheus_client.parser import text_string_to_metric_families
from torch import Tensor, nn

from app.core import catalogue
from app.core.db import Database
from app.core.settings import Settings
from app.core.storage import Storage
from models.checkpoint import CheckpointMeta, read_meta, save_checkpoint
from models.config import NetworkConfig, TextConfig
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "models" / "pretrained" / "emoji.safetensors"
API = (sys.executable, "-m", "app.cli", "api")
START_SECONDS = 120
STOP_SECONDS = 30
LOG_LINES = 40  # shown where something went wrong


@dataclass(frozen=True)
class Server:
    """A server process that answers."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path  # of all that it said

    @property
    def url(self) -> str:
        """What paths are put behind."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(folder: Path, command: Sequence[str] = API, **settings: str | int) -> Iterator[Server]:
    """A server on the studio in a folder. settings: those of Ganvas, by their names in lower case.

    It inherits a socket that listens already, so that no other process can take its port.
    """
    own = {f"GANVAS_{name.upper()}": str(value) for name, value in settings.items()}
    environment = os.environ | {"GANVAS_DATA": str(folder), "GANVAS_IMPORT_SAMPLES": "false"} | own
    log = folder / "server.log"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, log.open("ab") as output:
        inherited = listener.fileno()
        process = subprocess.Popen(
            [*command, "--fd", str(inherited)],
            env=environment,
            cwd=ROOT,
            pass_fds=(inherited,),
            stdout=output,
            stderr=output,
        )
        port: int = listener.getsockname()[1]
    server = Server(process, port, log)
    try:
        _wait(server)
        yield server
    except BaseException:
        sys.stderr.write("".join(log.read_text().splitlines(keepends=True)[-LOG_LINES:]))
        raise
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if httpx.get(f"{server.url}/livez", timeout=1).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise SystemExit("The server did not start.")


def publish(folder: Path, name: str, checkpoint: bytes, *, promote: bool = True) -> str:
    """Put a checkpoint into the studio in a folder, under a model's name; returns its sha256."""
    meta = read_meta(checkpoint)
    network = meta.config.network
    shape = {field: getattr(network, field) for field in ("architecture", "resolution", "z_dim", "w_dim", "num_ws")}
    model: dict[str, Any] = {"name": name, "labels": list(meta.labels), "vocabulary": list(meta.vocabulary)} | shape
    model["encoder"] = None if network.text is None else network.text.encoder
    sha256 = Storage(folder / "blobs").put(checkpoint)
    db = Database(Settings(data=folder).database)
    db.migrate()
    with db.begin() as session:
        catalogue.publish(
            session, model, sha256=sha256, kimg=meta.kimg, bytes_=len(checkpoint), metrics={}, promote=promote
        )
    db.close()
    return sha256


def untrained(preset_name: str, resolution: int, *, seed: int = 0, words: tuple[str, ...] = ()) -> bytes:
    """A checkpoint that has learnt nothing and yet paints with contrast. words: of the texts it takes, if it takes any.

    With the first weights alone pictures are nearly grey, and some layers are zero: they would be equal byte for byte
    whatever the arithmetic did.
    """
    text = TextConfig(encoder="hashed-256", features=256, dim=16) if words else None
    config = preset(preset_name, resolution, text=text, seed=seed)
    generator = _lively(config.network, seed)
    meta = CheckpointMeta(config=config, kimg=0, minutes=0, vocabulary=words, captions=words, captioned=bool(words))
    return save_checkpoint(None, generator, meta)


@torch.no_grad()
def _lively(network: NetworkConfig, seed: int) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(network)
        for weight in generator.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
        generator.w_avg.normal_(std=0.2)
        for layer in generator.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0  # its statistics are those of one pass
        x = generator.train()(torch.randn(16, network.z_dim), _texts(generator, 16))
    x = x.clamp(-0.999, 0.999)
    paint = generator.synthesis.get_submodule("paint")
    assert isinstance(paint.weight, nn.Parameter)
    paint.weight.mul_(0.8 / x.atanh().std())
    return generator.eval()


def _texts(generator: Generator, count: int) -> Tensor | None:
    if generator.text is None or generator.config.text is None:
        return None
    c: Tensor = generator.text(torch.randn(count, generator.config.text.features))
    return c


def metrics(url: str) -> Counter[tuple[str, str]]:
    """What a server's /metrics says: by sample and, where it is a bucket, its bound; summed over all other labels."""
    sums: Counter[tuple[str, str]] = Counter()
    answer = httpx.get(f"{url}/metrics", timeout=30).raise_for_status()
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            sums[sample.name, sample.labels.get("le", "")] += sample.value  # type: ignore[assignment]
    return sums


def batches(sums: Counter[tuple[str, str]]) -> dict[str, int]:
    """Forward passes by the pictures in them: "1", "2", "3-4" and so on; those there were."""
    bounds = sorted((float(bound), count) for (name, bound), count in sums.items() if name == BATCHES)
    passes, below, fewer = {}, 0.0, 0
    for bound, count in bounds:
        label = f"{below + 1:.0f}" if bound == below + 1 else f"{below + 1:.0f}-{bound:.0f}"
        if count > fewer:
            passes[label] = int(count - fewer)
        below, fewer = bound, count
    return passes


BATCHES = "ganvas_batch_pictures_bucket"
