"""Asks a busy server for thousands of recipes and compares every file, byte for byte, with its lone rendering.

Busy: many clients at once, single pictures and up to sixteen together, of more checkpoints than its memory holds, so
that they leave and come back all the time, while other callers leave before they are answered. Alone: a server that
was started anew, with nothing remembered, asked by one client for one picture after the other, by its URL.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import io
import json
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import studio
from PIL import Image

MEMORY_MIB = 16  # the least that can be set: three of the checkpoints
MOST_TOGETHER = 16  # pictures of one request
PATIENCE_SECONDS = 300
SHOWN = 10  # differences
WORDS = ("red", "blue", "circle", "square", "left", "right")
SPELL = 6  # requests for pictures of a few models, before others have their turn and these have to leave
MODELS_A_SPELL = 2
PNG_SHARE, NATIVE_SHARE, LEAVING, REPEATED = 0.7, 0.8, 0.1, 0.1


@dataclass(frozen=True)
class Picture:
    """One picture as a client asks for it: all that its file depends on."""

    model: str
    seed: int
    psi: float
    output_format: str
    cutoff: int | None = None
    mix_seed: int | None = None
    mix_layers: str | None = None
    prompt: str | None = None
    size: str | None = None
    compression: int | None = None

    def path(self) -> str:
        """Its URL."""
        said = {
            "seed": self.seed,
            "psi": self.psi,
            "cutoff": self.cutoff,
            "mix_seed": self.mix_seed,
            "mix_layers": self.mix_layers,
            "prompt": self.prompt,
            "size": self.size,
            "format": self.output_format,
            "compression": self.compression,
        }
        query = {name: value for name, value in said.items() if value is not None}
        return f"/v1/models/{self.model}/image?{urlencode(query)}"

    def body(self) -> dict[str, Any]:
        """What is posted for it."""
        mix = None if self.mix_seed is None else {"seed": self.mix_seed, "layers": self.mix_layers}
        return {
            "model": self.model,
            "seed": self.seed,
            "truncation_psi": self.psi,
            "truncation_cutoff": self.cutoff,
            "mix": mix,
            "prompt": self.prompt,
            "size": self.size,
            "output_format": self.output_format,
            "output_compression": self.compression,
        }


@dataclass(frozen=True)
class Request:
    """What one client sends: pictures that differ in their seeds alone, or one."""

    kind: str
    pictures: tuple[Picture, ...]
    leaves_after: float | None = None  # seconds; then nobody takes the answer


@dataclass
class Taken:
    """What came back from the busy server."""

    files: dict[Picture, bytes]
    repeats: list[tuple[Picture, bytes]]
    kinds: Counter[str]
    left: int = 0


def main() -> int:
    """Print what was compared; 1 where a file differs, or where nothing was proved."""
    args = arguments()
    chance = random.Random(args.seed)  # noqa: S311 - recipes, not secrets
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model, checkpoint in checkpoints().items():
            studio.publish(folder, model, checkpoint)
        with studio.serving(folder, model_memory_mib=MEMORY_MIB, log_level="error") as server:
            requests = plan(described(server.url), args.recipes, chance)
            began = time.perf_counter()
            taken = asyncio.run(busy(server.url, requests, args.clients))
            seconds = time.perf_counter() - began
            done = studio.metrics(server.url)
        with studio.serving(folder, picture_cache_mib=0, log_level="error") as server:
            order = list(taken.files)
            chance.shuffle(order)
            differences = alone(server.url, order, taken)
            lone = studio.metrics(server.url)
            print(f"Painted on {painted_on(server.url, order[0])}")
    return report(args, taken, seconds, done, lone, differences)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of the recipes; default 0")
    return parser.parse_args()


def checkpoints() -> dict[str, bytes]:
    """Of every network, by the name of its model; together several times what the server may hold."""
    made = {
        "tiny-64": studio.untrained("tiny", 64),
        "few-shot-64": studio.untrained("few-shot", 64),
        "quality-64": studio.untrained("quality", 64),
        "worded-32": studio.untrained("quality", 32, words=WORDS),
        "classic-32": studio.untrained("classic", 32),
    }
    if studio.BUNDLED.exists():
        made["emoji"] = studio.BUNDLED.read_bytes()
    return made


def described(url: str) -> list[dict[str, Any]]:
    """The models as the server describes them."""
    models: list[dict[str, Any]] = httpx.get(f"{url}/v1/models").raise_for_status().json()["data"]
    return models


def plan(models: Sequence[dict[str, Any]], recipes: int, chance: random.Random) -> list[Request]:
    """Requests for so many different pictures, among them some that ask again and some that leave."""
    requests: list[Request] = []
    planned: set[Picture] = set()
    while len(planned) < recipes:
        if len(requests) % SPELL == 0:
            in_turn = chance.sample(models, min(MODELS_A_SPELL, len(models)))
        request = some_request(chance.choice(in_turn), chance, recipes - len(planned))
        if chance.random() < LEAVING:
            requests.append(replace(request, leaves_after=chance.expovariate(10)))
            continue
        if not planned.isdisjoint(request.pictures):
            continue
        planned.update(request.pictures)
        requests.append(request)
        if chance.random() < REPEATED:
            requests.append(request)
    return requests


def some_request(model: dict[str, Any], chance: random.Random, most: int) -> Request:
    """A request of any kind for one model."""
    kind = chance.choice(("url", "file", "zip", "json", "stream"))
    count = 1 if kind in ("url", "file") else chance.randint(1, min(MOST_TOGETHER, most))
    first = some_picture(model, chance)
    seeds = range(first.seed, first.seed + count)
    return Request(kind, tuple(replace(first, seed=seed) for seed in seeds))


def some_picture(model: dict[str, Any], chance: random.Random) -> Picture:
    """Any picture of a model, asked for by its name or by its exact weights."""
    layers, native = model["num_ws"], model["resolution"]
    mixed = chance.random() < 0.3
    known = [*model["vocabulary"][:50], "nothing it knows"]
    output_format = "png" if chance.random() < PNG_SHARE else chance.choice(("webp", "jpeg"))
    return Picture(
        model=model["id"] + chance.choice(("", f"@{model['checkpoint'][:12]}")),
        seed=chance.randrange(2**32 - MOST_TOGETHER),
        psi=chance.choice((0.7, 1.0, 0.5, -0.5, round(chance.uniform(-2, 2), 3))),
        output_format=output_format,
        cutoff=chance.choice((None, None, chance.randint(0, layers))),
        mix_seed=chance.randrange(2**32) if mixed else None,
        mix_layers=str(chance.randrange(layers)) if mixed else None,
        prompt=" ".join(chance.choices(known, k=2)) if chance.random() < 0.3 else None,
        size=None if chance.random() < NATIVE_SHARE else f"{native * 3 // 2}x{native}",
        compression=None if output_format == "png" else chance.choice((None, 80)),
    )


async def busy(url: str, requests: Sequence[Request], clients: int) -> Taken:
    """All requests, by so many clients at once."""
    taken = Taken({}, [], Counter())
    waiting = iter(requests)
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, limits=limits) as connections:

        async def client() -> None:
            for request in waiting:
                await send(connections, request, taken)

        async with asyncio.TaskGroup() as running:
            for _ in range(clients):
                running.create_task(client())
    return taken


async def send(connections: httpx.AsyncClient, request: Request, taken: Taken) -> None:
    """Send a request and keep what it gives, unless the client leaves before."""
    if request.leaves_after is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(request.leaves_after):
                await ask(connections, request)
        taken.left += 1
        return
    files = await ask(connections, request)
    taken.kinds[request.kind] += 1
    for picture, file in zip(request.pictures, files, strict=True):
        if picture in taken.files:
            taken.repeats.append((picture, file))
        else:
            taken.files[picture] = file


async def ask(connections: httpx.AsyncClient, request: Request) -> list[bytes]:
    """The files of a request."""
    first = request.pictures[0]
    if request.kind == "url":
        return [(await connections.get(first.path())).raise_for_status().content]
    accepted = {"file": f"image/{first.output_format}", "zip": "application/zip"}.get(request.kind, "application/json")
    body = first.body() | {"n": len(request.pictures), "stream": request.kind == "stream"}
    said = await connections.post("/v1/images/generations", json=body, headers={"accept": accepted})
    content = said.raise_for_status().content
    if request.kind == "file":
        return [content]
    if request.kind == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [archive.read(member) for member in archive.namelist()]
    if request.kind == "json":
        return [base64.b64decode(item["b64_json"]) for item in json.loads(content)["data"]]
    events = [line.removeprefix("data: ") for line in content.decode().splitlines() if line.startswith("data: ")]
    return [base64.b64decode(json.loads(event)["b64_json"]) for event in events]


def alone(url: str, order: Sequence[Picture], taken: Taken) -> list[str]:
    """Ask for each picture by itself; says of each file that came out otherwise among others how it differs."""
    repeats: dict[Picture, list[bytes]] = {}
    for picture, file in taken.repeats:
        repeats.setdefault(picture, []).append(file)
    differences = []
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        for picture in order:
            expected = client.get(picture.path()).raise_for_status().content
            for file in (taken.files[picture], *repeats.get(picture, [])):
                if file != expected:
                    differences.append(f"{picture.path()}: {difference(file, expected)}")
    return differences


def painted_on(url: str, picture: Picture) -> str:
    """The device and the numbers that a picture's recipe names."""
    recipe = json.loads(httpx.get(url + picture.path()).raise_for_status().headers["x-ganvas-recipe"])
    return f"{recipe['device']} in {recipe['dtype']}"


def difference(file: bytes, expected: bytes) -> str:
    """How two files of a picture differ."""
    one, other = (np.asarray(Image.open(io.BytesIO(data)), dtype=np.int16) for data in (file, expected))
    if one.shape != other.shape:
        return f"{one.shape} in place of {other.shape}"
    apart = np.abs(one - other)
    return f"{np.count_nonzero(apart)} of {apart.size} values, by {apart.max()} at most"


def report(
    args: argparse.Namespace,
    taken: Taken,
    seconds: float,
    done: Counter[tuple[str, str]],
    lone: Counter[tuple[str, str]],
    differences: Sequence[str],
) -> int:
    """Print the figures; the exit status."""
    count, passes = len(taken.files), studio.batches(done)
    loads, evictions = (int(done[f"ganvas_{name}_total", ""]) for name in ("loads", "evictions"))
    digest = hashlib.sha256(b"".join(taken.files[picture] for picture in sorted(taken.files, key=Picture.path)))
    print(f"{count:,} recipes in {seconds:.0f} s by {args.clients} clients; {len(taken.repeats):,} asked for twice,")
    print(f"{taken.left:,} requests left before their answer; answered: {dict(sorted(taken.kinds.items()))}")
    print(f"checkpoints loaded {loads:,} times, evicted {evictions:,} times")
    print(f"passes by their pictures: {passes}")
    print(f"alone: {int(lone['ganvas_pictures_painted_total', '']):,} painted, in passes of {studio.batches(lone)}")
    for line in differences[:SHOWN]:
        print(line)
    compared = count + len(taken.repeats)
    print(f"{compared - len(differences):,} of {compared:,} files identical, {len(differences):,} different")
    print(f"sha256 of all files: {digest.hexdigest()}")
    proved = evictions > 0 and set(passes) > {"1"} and lone["ganvas_pictures_painted_total", ""] >= count
    if not proved:
        print("Nothing is proved: no checkpoint was evicted, no pass was shared, or a lone picture was not painted.")
    return 0 if proved and not differences else 1


if __name__ == "__main__":
    sys.exit(main())
