"""Kills training jobs at random moments (SIGKILL), resumes them, and compares what they learnt with a training that was
never interrupted: every weight, moment and random state must be the same, bit for bit.

The jobs are real ones: the worker's task on a database and a storage of their own, in a process that is killed by the
operating system; the row goes back to the queue as the worker sends it when its horse dies. The budget is in kimg, for
a budget in minutes depends on how fast the machine was, and so does what its schedules give.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from app.core import datasets, jobs
from app.core.db import Database
from app.core.records import Job
from app.core.storage import Storage
from models.config import NetworkConfig, TextConfig, TrainConfig
from models.presets import preset
from worker.dataset.store import Item, Manifest, write_manifest
from worker.dataset.verdicts import Verdict
from worker.training.state import METADATA_KEY

PICTURES = 40
DIFFERS = {"minutes"}  # of the counters: how long it took
MOST_ATTEMPTS = 8  # at one kill: machines are faster at times, and a training is over before it

SHAPES: dict[str, dict[str, Any]] = {
    "dcgan": {"discriminator_widths": (16, 8, 8)},
    "fastgan": {"discriminator_widths": (16, 8, 8)},
    "r3gan": {"discriminator_widths": (16, 8, 8, 8), "group_size": 4},
}


@dataclass(frozen=True)
class Studio:
    """A database and a storage in a folder, as a worker finds them by GANVAS_DATA."""

    folder: Path
    db: Database
    storage: Storage
    dataset: str


def main() -> int:
    """Print one line a kill; 1 where any training ended with other weights."""
    args = arguments()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["worker.training.run", "worker.tasks"])  # so that each start is only a fork
    chance = random.Random(args.seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as name:
        studio = open_studio(Path(name))
        config = small_config(args.architecture, args.kimg)
        first = processes.Process(target=os.getpid)  # with which the processes' server starts
        first.start()
        first.join()
        began = time.perf_counter()
        whole = submit(studio, config, "whole")
        start(processes, studio, whole).join()
        seconds = time.perf_counter() - began
        expected = learnt(studio, whole)
        print(f"{args.architecture}, {args.kimg:g} kimg in {seconds:.1f} s: {expected[:16]}", flush=True)
        same = 0
        for number in range(1, args.kills + 1):
            found, moments = killed_and_resumed(processes, studio, config, f"kill-{number}", chance, seconds)
            same += found == expected
            verdict = "equal" if found == expected else "DIFFERS"
            print(f"{number:3}  killed after {moments}: {found[:16]}  {verdict}", flush=True)
        studio.db.close()
    print(f"{same} of {args.kills} killed and resumed trainings ended with the weights of the uninterrupted one")
    return 0 if same == args.kills else 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kimg", type=float, default=0.8, help="length of each training; default 0.8")
    parser.add_argument("--architecture", choices=sorted(SHAPES), default="dcgan")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default 0")
    return parser.parse_args()


def small_config(architecture: str, kimg: float) -> TrainConfig:
    """All that a state has to carry: an average, adaptive augmentation, small passes, lazy penalties, texts."""
    shape = {"architecture": architecture, "generator_widths": (16, 8, 8, 4), **SHAPES[architecture]}
    shape["text"] = TextConfig(encoder="hashed-256", features=256, dim=8)
    network = NetworkConfig.model_validate(preset("tiny", 32).network.model_dump() | shape)
    settings = preset("tiny", 32, total_kimg=kimg).model_dump() | {
        "network": network,
        "batch_size": 8,
        "micro_batch": 4,
        "augment_target": 0.6,
        "augment_kimg": 1.0,
        "ema_halflife_kimg": 0.05,
        "first_snapshot_minutes": 0.02,
        "snapshot_growth": 1.0,
        "reconstruction_weight": 1.0 if architecture == "fastgan" else 0.0,
    }
    return TrainConfig.model_validate(settings)


def open_studio(folder: Path) -> Studio:
    """A new one, with a dataset of captioned noise that is ready."""
    db = Database(f"sqlite:///{folder}/ganvas.sqlite3")
    db.migrate()
    storage = Storage(folder / "blobs")
    images = np.random.default_rng(0).integers(0, 256, (PICTURES, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    write_manifest(folder / "manifest.json", manifest())
    with db.begin() as session:
        row, _ = datasets.create(session, name="noise", source_sha256="0" * 64, request={})
        row.status, row.count, row.captions, row.labels = "ready", PICTURES, PICTURES, ["noise"]
        row.array_sha256 = storage.put(folder / "images.npy")
        row.manifest_sha256 = storage.put(folder / "manifest.json")
    return Studio(folder, db, storage, row.id)


def manifest() -> Manifest:
    """Every picture kept, with a caption and a label."""
    items = [
        Item(
            index=row,
            file_name=f"{row}.png",
            verdict=Verdict.OK,
            reason="Kept.",
            position=row,
            caption=f"noise number {row % 7}",
            label="noise",
        )
        for row in range(PICTURES)
    ]
    return Manifest(
        resolution=32,
        crop="center",
        background="white",
        sent=PICTURES,
        kept=PICTURES,
        counts={Verdict.OK: PICTURES},
        captions=PICTURES,
        labels=["noise"],
        readiness="Ready.",
        warnings=[],
        items=items,
    )


def submit(studio: Studio, config: TrainConfig, name: str) -> str:
    """Queue a training and give the job's id."""
    request = {"dataset": studio.dataset, "name": name, "config": config.model_dump(mode="json")}
    with studio.db.begin() as session:
        return jobs.submit(session, "train", request).id


def start(processes: multiprocessing.context.ForkServerContext, studio: Studio, job_id: str) -> ForkServerProcess:
    """A process that works on the job as a worker's does."""
    process = processes.Process(target=work, args=(str(studio.folder), job_id))
    process.start()
    return process


def work(folder: str, job_id: str) -> None:
    """In that process."""
    os.environ |= {"GANVAS_DATA": folder, "GANVAS_THREADS": "1", "GANVAS_DEVICE": "cpu", "GANVAS_LOG_LEVEL": "error"}
    from worker import tasks

    tasks.train(job_id)


def killed_and_resumed(
    processes: multiprocessing.context.ForkServerContext,
    studio: Studio,
    config: TrainConfig,
    name: str,
    chance: random.Random,
    seconds: float,
) -> tuple[str, str]:
    """What a training learnt that was killed once, and when that was. A kill that came too late is tried again."""
    for attempt in range(MOST_ATTEMPTS):
        job_id = submit(studio, config, f"{name}-{attempt}")
        process, began = start(processes, studio, job_id), time.perf_counter()
        moment = chance.uniform(0, seconds)
        process.join(moment)
        seconds = min(seconds, time.perf_counter() - began) if process.exitcode == 0 else seconds
        process.kill()
        process.join()
        job = fetch(studio, job_id)
        if job.status == "succeeded":
            continue
        with studio.db.begin() as session:
            jobs.holder_died(session, job_id, job.epoch)
        start(processes, studio, job_id).join()
        return learnt(studio, job_id), f"{moment:4.1f} s, at {job.progress:4.0%}, saved {job.state_kimg or 0:.3f} kimg"
    raise SystemExit(f"{name}: the training was over before every kill; ask for more --kimg.")


def fetch(studio: Studio, job_id: str) -> Job:
    """The job's row as it is now."""
    with studio.db.read() as session:
        return jobs.find(session, job_id)


def learnt(studio: Studio, job_id: str) -> str:
    """A hash of the state that an ended job saved last: all of it but the minutes it took."""
    job = fetch(studio, job_id)
    if job.status != "succeeded" or job.state_sha256 is None:
        raise SystemExit(f"{job.request['name']} ended as {job.status}: {job.message}")
    digest = hashlib.sha256()
    with safetensors.safe_open(studio.storage.path(job.state_sha256), "pt") as state:
        for name in sorted(state.keys()):
            digest.update(name.encode() + state.get_tensor(name).numpy().tobytes())
        saved = json.loads(state.metadata()[METADATA_KEY])
    digest.update(json.dumps({name: saved[name] for name in sorted(saved.keys() - DIFFERS)}).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
