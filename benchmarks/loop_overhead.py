"""How much of the bare training loop's speed is left in a training job: records, storage, lease and all.

Bare is nothing but steps; the job is the one a worker runs, on a database and storage of its own, its ticks, snapshots
and saved states included. They take turns, so that only their ratio means something. A round is shorter than a
training, whose snapshots grow rarer, so the share printed is a lower bound.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from app.core import datasets, jobs
from app.core.db import Database
from app.core.storage import Storage
from models.config import TrainConfig
from models.presets import PRESETS, RESOLUTIONS, preset
from worker.training.loop import choose_device, settle
from worker.training.run import train_and_publish
from worker.training.state import TrainingState
from worker.training.steps import train_step

WANTED_SHARE = 0.95  # of the bare loop's images per second
IMAGES = 1_200


def main() -> None:
    """Print both rates of every round, and the median share."""
    args = arguments()
    torch.set_num_threads(args.threads)
    config = preset(args.preset, args.resolution, max_minutes=args.minutes)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, args.resolution, args.resolution, 3), dtype=np.uint8)
    print(f"{args.preset}, {args.resolution} px, {args.minutes:g} min a turn, {args.threads} threads")
    print("round   bare img/s   job img/s   share")
    shares = []
    for number in range(1, args.rounds + 1):
        turns = {"bare": bare_rate, "job": job_rate}
        names = ["bare", "job"] if number % 2 else ["job", "bare"]
        rates = {name: turns[name](config, images, args.device) for name in names}
        shares.append(rates["job"] / rates["bare"])
        print(f"{number:5}   {rates['bare']:10.1f}   {rates['job']:9.1f}   {shares[-1]:5.3f}", flush=True)
    print(f"median share {statistics.median(shares):.3f} (wanted: at least {WANTED_SHARE})")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    parser.add_argument("--resolution", type=int, choices=RESOLUTIONS, default=64)
    parser.add_argument("--minutes", type=float, default=1.0, help="length of a turn; default 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def bare_rate(config: TrainConfig, images: np.ndarray, device: str) -> float:
    """Images per second of steps and nothing else."""
    state = TrainingState.start(config)
    reals = settle(state, images, choose_device(device))
    seconds = (config.max_minutes or 0) * 60
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        train_step(state, reals, elapsed / seconds)
    return state.images_seen / elapsed


def job_rate(config: TrainConfig, images: np.ndarray, device: str) -> float:
    """Images per second of a job, from its first step to the end of its budget, as its last tick tells them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        db = Database(f"sqlite:///{folder / 'ganvas.db'}")
        db.migrate()
        storage = Storage(folder / "blobs")
        job_id = submit(db, storage, config, images, folder)
        claim = jobs.claim(db, job_id, threading.Event())
        assert claim is not None
        train_and_publish(db, storage, claim, device=device)
        claim.release()
        with db.read() as session:
            ticks = [event.data for event in jobs.events_after(session, job_id, 0, 100_000) if event.type == "tick"]
        db.close()
    return float(ticks[-1]["kimg"] * 1000 / (ticks[-1]["minutes"] * 60))


def submit(db: Database, storage: Storage, config: TrainConfig, images: np.ndarray, folder: Path) -> str:
    """Queue a training on a dataset that is ready."""
    np.save(folder / "images.npy", images)
    array_sha256 = storage.put(folder / "images.npy")
    with db.begin() as session:
        dataset, _ = datasets.create(session, name="noise", source_sha256=array_sha256, request={})
        dataset.status = "ready"
        dataset.array_sha256 = array_sha256
        request = {"dataset": dataset.id, "name": "bench", "config": config.model_dump(mode="json")}
        return jobs.submit(session, "train", request).id


if __name__ == "__main__":
    main()
