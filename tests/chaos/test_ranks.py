"""One job, several processes: what becomes of it when one is lost, when it is stopped, and when all goes well."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.records import Checkpoint, Job
from app.core.storage import Storage
from models.config import NetworkConfig, TrainConfig
from models.presets import preset
from worker import tasks

WAIT_SECONDS = 300  # a few, but for a machine with much else to do


class Studio:
    """A database, a storage and a prepared dataset, where the tasks will find them by GANVAS_DATA."""

    def __init__(self, folder: Path) -> None:
        self.db = Database(f"sqlite:///{folder}/ganvas.sqlite3")
        self.db.migrate()
        self.storage = Storage(folder / "blobs")
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for number in range(12):
                picture = io.BytesIO()
                Image.new("RGB", (32, 32), (number * 20, 255 - number * 10, 128)).save(picture, "PNG")
                file.writestr(f"{number}.png", picture.getvalue())
        source = self.storage.put(archive.getvalue())
        with self.db.begin() as session:
            row, job = datasets.create(session, name="d", source_sha256=source, request={"resolution": 32})
            self.dataset, preparing = row.id, job.id
        tasks.prepare(preparing)

    def submit(self, config: TrainConfig) -> str:
        request = {"dataset": self.dataset, "name": "discs", "config": config.model_dump(mode="json")}
        with self.db.begin() as session:
            return jobs.submit(session, "train", request).id

    def job(self, job_id: str) -> Job:
        with self.db.read() as session:
            return jobs.find(session, job_id)

    def published(self) -> list[float]:
        """kimg of every checkpoint, in the order of publishing."""
        with self.db.read() as session:
            return [row.kimg for row in session.query(Checkpoint).order_by(Checkpoint.created_at)]

    def train(self, job_id: str, then: Callable[[], object]) -> Job:
        """Run one attempt, `then` once it has published something of its own, and return what became of the job."""
        before = len(self.published())
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                if len(self.published()) > before:
                    then()
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        tasks.train(job_id)
        ended.set()
        watcher.join()
        assert ranks() == [], "no process is left behind"
        return self.job(job_id)


def ranks() -> list[psutil.Process]:
    """The processes that train, by rank."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "worker.training.rank" in words and "torch.distributed.run" not in words:
            environment = process.environ()
            if environment.get("GANVAS_DATA") == os.environ["GANVAS_DATA"]:
                found[environment["RANK"]] = process
    return [found[rank] for rank in sorted(found)]


def tiny(**settings: object) -> TrainConfig:
    network = preset("tiny", 32).network.model_dump()
    widths = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8)}
    snapshots = {"first_snapshot_minutes": 0.01, "snapshot_growth": 1}
    chosen = {"batch_size": 8, "total_kimg": None, "max_minutes": 600} | snapshots | settings
    return TrainConfig.model_validate(
        preset("tiny", 32).model_dump() | chosen | {"network": NetworkConfig(**(network | widths))}
    )


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Studio]:
    for name, value in {"DATA": str(tmp_path), "THREADS": "2", "TRAIN_PROCESSES": "2", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"GANVAS_{name}", value)
    monkeypatch.setattr(tasks, "interrupted", threading.Event())
    made = Studio(tmp_path)
    yield made
    made.db.close()


def test_a_lost_process_a_drain_and_a_cancel_each_end_the_attempt_and_lose_nothing_that_was_published(
    studio: Studio,
) -> None:
    job = studio.submit(tiny())

    def lose_one() -> None:
        ranks()[1].kill()

    lost = studio.train(job, then=lose_one)
    assert (lost.status, lost.attempts) == ("queued", 1)
    assert lost.state_kimg == studio.published()[-1]
    assert "A process of the training was lost." in lost.message

    drained = studio.train(job, then=tasks.interrupted.set)
    assert (drained.status, drained.attempts, drained.fruitless) == ("queued", 2, 0)
    assert drained.message == "The worker was stopped. Waiting for a worker to go on."
    assert drained.state_kimg > lost.state_kimg
    tasks.interrupted.clear()

    def cancel() -> None:
        with studio.db.begin() as session:
            jobs.cancel(session, job)

    canceled = studio.train(job, then=cancel)
    assert canceled.status == "canceled"
    assert canceled.state_kimg > drained.state_kimg
    assert studio.published() == sorted(set(studio.published())), "each of the three went on where the last had saved"
    assert studio.published()[-1] == canceled.state_kimg


def test_two_machines_train_one_job_to_its_end_and_publish_every_checkpoint_once(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = ["--nnodes=2", "--master-addr=127.0.0.1", f"--master-port={unused_port()}"]
    monkeypatch.setenv("GANVAS_TRAIN_PROCESSES", "1")
    monkeypatch.setenv("GANVAS_TRAIN_TORCHRUN", " ".join([*address, "--node-rank=0"]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", *address, "--node-rank=1", "--log-dir", os.devnull]
    with subprocess.Popen([*torchrun, "-m", "worker.training.rank"]) as second:
        job = studio.submit(tiny(total_kimg=0.08))
        ended = studio.train(job, then=lambda: None)
        assert second.wait(timeout=WAIT_SECONDS) == 0
    assert (ended.status, ended.attempts, ended.state_kimg) == ("succeeded", 1, 0.08)
    assert studio.published() == sorted(set(studio.published()))
    with studio.db.read() as session:
        assert catalogue.resolve(session, "discs").checkpoint.kimg == 0.08


def unused_port() -> int:
    """A port that no connection of anybody else's is given while two machines are about to meet there."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):  # below those that the system hands out
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
