"""Fills a studio's disks, one after the other, again and again, and looks at what becomes of it. Run in a mount
namespace of its own: `unshare --user --map-root-user --mount python -m tests.chaos.filling FOLDER ROUNDS`."""

import hashlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from models.config import NetworkConfig
from models.presets import preset
from tests.studio import Studio, draw_shapes

MODEL = "filled"
DISKS = {"blobs": 128, "database": 24, "redis": 16, "temporary": 16}  # MiB
FULL_SECONDS = 3.0
ASKING_SECONDS = 1.0  # between two goes: what is accepted meanwhile is ahead of what shows that all is well
HEAL_SECONDS = 30.0
TELLING = 0.02  # how often what became free is taken again, seconds
REFUSED = frozenset({503, 507})  # what may be said of work that cannot be taken
LARGE_PICTURE_BYTES = 1536 * 1024  # of a form: it goes to a temporary file


class Disk:
    """A small file system in memory."""

    def __init__(self, folder: Path, mib: int) -> None:
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", folder], check=True)  # noqa: S607 - wherever it is
        self._filler = folder / "filler"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Without a free byte, for the length of a `with` block: what becomes free is taken again."""
        ended = threading.Event()

        def fill() -> None:
            with self._filler.open("wb", buffering=0) as filler:
                piece = 1024 * 1024
                while not ended.wait(TELLING if piece == 1 else 0):
                    try:
                        filler.write(bytes(piece))
                    except OSError:
                        piece = max(1, piece // 4)

        thread = threading.Thread(target=fill)
        thread.start()
        time.sleep(0.3)
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._filler.unlink()


class Tally:
    """What was asked for, what was said, and what was accepted."""

    def __init__(self) -> None:
        self.said: Counter[tuple[str, int]] = Counter()
        self.accepted: list[str] = []
        self.wrong: list[str] = []

    def ask(
        self, what: str, send: Callable[[], httpx.Response], *, must: bool = False, may_break_off: bool = False
    ) -> None:
        """One request. must: it takes no room, so it has to be served. may_break_off: its answer may have begun when
        the disk was found to be full."""
        try:
            answer = send()
        except httpx.TransportError as error:
            if not may_break_off:
                self.wrong.append(f"{what}: {error!r}")
            return
        self.said[what, answer.status_code] += 1
        if answer.status_code not in REFUSED and answer.status_code >= 500:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text}")
        if must and answer.status_code != 200:
            self.wrong.append(f"{what} was refused: {answer.status_code} {answer.text}")
        if answer.status_code in REFUSED and answer.headers["content-type"] != "application/problem+json":
            self.wrong.append(f"{what}: no problem JSON but {answer.text}")
        if answer.status_code == 201 and what == "upload":
            self.accepted.append(answer.json()["job"])
        if answer.status_code == 202:
            self.accepted.append(answer.json()["id"])


def ask_for_everything(studio: Studio, tally: Tally, model: str) -> None:
    """Some of each that takes room, and what has to go on without."""
    client, seed = studio.client, tally.said.total()
    picture = {"image": ("large.png", bytes(LARGE_PICTURE_BYTES), "image/png")}
    tally.ask("draw", lambda: client.get(f"/v1/models/{model}/image", params={"seed": seed}), must=True)
    tally.ask("upload", lambda: upload(client))
    tally.ask("render", lambda: render(client, model, seed))
    recipe = {"prompt": "", "model": model, "seed": seed, "size": "32x32", "keep": True}
    tally.ask("keep", lambda: client.post("/v1/images/generations", json=recipe))
    tally.ask("vary", lambda: client.post("/v1/images/variations", files=picture))
    tally.ask("verify", lambda: client.post("/v1/recipes/verify", files={"file": picture["image"]}))
    tally.ask("export", lambda: client.get("/v1/artworks/export"), may_break_off=True)
    tally.ask("list", lambda: client.get("/v1/jobs"), must=True)


def upload(client: httpx.Client) -> httpx.Response:
    """A small dataset."""
    files = {"files": ("shapes.zip", draw_shapes(), "application/zip")}
    return client.post("/v1/datasets", data={"name": "shapes", "resolution": "32"}, files=files)


def render(client: httpx.Client, model: str, seed: int) -> httpx.Response:
    """A sheet of one picture."""
    return client.post("/v1/renders", json={"kind": "grid", "model": model, "seeds": [seed], "columns": 1})


def start_training(studio: Studio) -> str:
    """A training without end, of networks so small that all their checkpoints have room; its job's id."""
    network = NetworkConfig(
        resolution=32,
        z_dim=16,
        w_dim=16,
        mapping_layers=1,
        generator_widths=(16, 8, 8, 4),
        discriminator_widths=(16, 8, 8),
        generator_norm="none",
    )
    often = {"max_minutes": 600, "first_snapshot_minutes": 0.05, "longest_snapshot_minutes": 0.05}
    config = preset("tiny", 32, **often).model_copy(update={"network": network})
    body = {"dataset": studio.upload(), "name": MODEL, "config": config.model_dump(mode="json")}
    answer = studio.client.post("/v1/training/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def heal(studio: Studio, model: str, training: str) -> float:
    """Seconds until everything goes on: a new dataset is prepared, a new sheet drawn, and the training has learnt more
    and saved it."""
    began, client = time.monotonic(), studio.client
    before = studio.job(training)["progress"]
    saved = len(studio.snapshots(training))
    asked: dict[str, str] = {}

    def goes_on() -> bool:
        for what, send, field in (
            ("upload", lambda: upload(client), "job"),
            ("render", lambda: render(client, model, int(before * 1e6)), "id"),
        ):
            if what not in asked:
                answer = send()
                if answer.status_code in {201, 202}:
                    asked[what] = answer.json()[field]
        jobs = [studio.job(job)["status"] for job in asked.values()]
        learns = studio.job(training)["progress"] > before and len(studio.snapshots(training)) > saved
        return jobs == ["succeeded"] * 2 and learns and client.get("/readyz").json()["status"] == "ok"

    studio.wait_for(goes_on, 3 * HEAL_SECONDS)
    return time.monotonic() - began


def corrupt(data: Path, database: Path) -> list[str]:
    """Blobs that do not hold what their names say, and what SQLite says of its pages."""
    found = []
    for blob in (data / "blobs" / "sha256").glob("??/*"):
        try:
            if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
                found.append(blob.name)
        except FileNotFoundError:
            continue  # deleted just now
    with sqlite3.connect(database, timeout=30) as connection:
        told = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    return found if told == "ok" else [*found, str(told)]


def one_round(studio: Studio, disk: Disk, tally: Tally, model: str, training: str) -> float:
    """Fill a disk while everything is asked for, make room, and see how long the studio takes to go on."""
    with disk.full():
        until = time.monotonic() + FULL_SECONDS
        while time.monotonic() < until:
            ask_for_everything(studio, tally, model)
            time.sleep(ASKING_SECONDS)
    return heal(studio, model, training)


def run(folder: Path, rounds: int) -> dict[str, Any]:
    """All disks of a studio in this folder, `rounds` times each; what was found."""
    data, database = folder / "data", folder / "database" / "ganvas.sqlite3"
    places = {name: folder / name for name in DISKS} | {"blobs": data / "blobs", "redis": data / "redis"}
    disks = {name: Disk(places[name], mib) for name, mib in DISKS.items()}
    (folder / "data.log").symlink_to(places["temporary"] / "data.log")  # what cannot be logged must harm nothing else
    studio = Studio(
        data,
        GANVAS_DATABASE_URL=f"sqlite:///{database}",
        GANVAS_FREE_SPACE_FLOOR_MIB="0",  # or nothing would be begun that meets a full disk
        GANVAS_IMPORT_SAMPLES="false",
        GANVAS_LOG_LEVEL="debug",
        GANVAS_MAX_QUEUED_JOBS="10000",
        TMPDIR=str(places["temporary"]),
    )
    tally, took, damaged = Tally(), {name: [] for name in DISKS}, []
    try:
        training = start_training(studio)
        studio.wait_for(lambda: len(studio.snapshots(training)) > 0)
        for _round in range(rounds):
            for name, disk in disks.items():
                took[name].append(round(one_round(studio, disk, tally, MODEL, training), 1))
                damaged += corrupt(data, database)
                sys.stderr.write(f"{name}: went on after {took[name][-1]} s\n")
        ended = [studio.finish(job) for job in tally.accepted]
        failed = [f"{job['kind']} {job['id']}: {job['message']}" for job in ended if job["status"] != "succeeded"]
        studio.client.post(f"/v1/jobs/{training}/cancel")
        studio.finish(training)
    finally:
        status = studio.stop()
    doctor = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor"],
        env={"GANVAS_DATA": str(data), "GANVAS_DATABASE_URL": f"sqlite:///{database}", "PATH": "/usr/bin:/bin"}
        | {"GANVAS_FREE_SPACE_FLOOR_MIB": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "took": took,
        "corrupt": damaged,
        "wrong": tally.wrong,
        "failed": failed,
        "accepted": len(tally.accepted),
        "said": {f"{what} {status_}": count for (what, status_), count in sorted(tally.said.items())},
        "exit": status,
        "doctor": doctor.returncode,
        "doctor_said": doctor.stdout,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
