"""One of several processes that train together: `torchrun ... -m worker.training.rank`, started by launch.py.

The first acts for the job, under the claim of the work-horse that started it; it alone publishes. The others are told
by the first what to do and have no database, so that they may run on other machines (docs/gpus.md).
"""

import argparse
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog
import torch
from torch import distributed

from app.core import jobs
from app.core.db import Database
from app.core.errors import TrainingDiverged
from app.core.logs import configure_logs
from app.core.settings import Settings, load_settings
from app.core.storage import Storage
from worker.dataset.store import open_images
from worker.horse import Interrupted, follow_parent, interrupt, interrupted
from worker.tasks import end_training, explaining
from worker.training.loop import choose_device, train
from worker.training.orders import take_orders
from worker.training.ranks import Ranks
from worker.training.run import dataset_texts, train_and_publish
from worker.training.share import keep_to_share, step_threads
from worker.watchdog import watched

log = structlog.get_logger(__name__)

LONGEST_WAIT: Final = timedelta(minutes=30)  # for the first, which reads texts, measures and stores for all


def main(arguments: Sequence[str] | None = None) -> None:
    """Train along until the first process says that it is over; leaving with an error ends the others too."""
    parser = argparse.ArgumentParser(prog="worker.training.rank", description=__doc__)
    parser.add_argument("--job", help="the training job; its first process needs it")
    parser.add_argument("--epoch", type=int, help="the epoch under which the job was claimed")
    parser.add_argument("--meet", default="env://", help="where the processes find each other; default: torchrun says")
    asked = parser.parse_args(arguments)
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if ranks.first and asked.job is None:
        parser.error("the first process has to be the one that the job starts: give torchrun --node-rank 1 here")
    follow_parent(os.getppid())
    settings = load_settings()
    configure_logs(settings.log_level)
    device = _own_device(settings)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, asked.meet, LONGEST_WAIT, ranks.count, ranks.rank)
    for number in (signal.SIGTERM, signal.SIGUSR1):  # which end the process until here: Python hears none in there
        signal.signal(number, interrupt)
    if ranks.first:
        lead(settings, asked.job, asked.epoch, ranks, device)
    else:
        follow(settings, ranks, device)


def lead(settings: Settings, job_id: str, epoch: int, ranks: Ranks, device: torch.device) -> None:
    """Train as the job asks and say how it ended. What no message explains ends this process, and so the attempt."""
    db = Database(settings.database)
    claim = jobs.join(db, job_id, epoch, interrupted)
    if claim is None:
        raise SystemExit(f"Job {job_id} is no longer at epoch {epoch}.")
    try:
        with explaining(claim), watched(claim, settings.step_timeout_minutes):
            storage = Storage(settings.data / "blobs", settings.storage_url)
            end_training(claim, train_and_publish(db, storage, claim, device=str(device), ranks=ranks))
    finally:
        claim.leave()
        db.close()


def follow(settings: Settings, ranks: Ranks, device: torch.device) -> None:
    """Train along with the first process, and say nothing."""
    storage = Storage(settings.data / "blobs", settings.storage_url)
    dataset, state = take_orders(ranks)
    with suppress(TrainingDiverged):  # the first says so
        train(
            state.config,
            open_images(storage.path(dataset.array_sha256 or "")),
            on_tick=_say_nothing,
            on_snapshot=_say_nothing,
            should_stop=interrupted.is_set,
            texts=dataset_texts(storage, dataset, state.config, lambda: None),
            state=state,
            device=str(device),
            ranks=ranks,
        )
        ranks.part()


def _own_device(settings: Settings) -> torch.device:
    """The GPU of this process's number on this machine, or its part of the processor."""
    number, count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    torch.set_num_threads(max(1, step_threads(settings.threads) // count))
    device = choose_device(settings.device)
    if device.type != "cuda":
        return device
    torch.cuda.set_device(number)
    own = torch.device("cuda", number)
    keep_to_share(own, settings.train_gpu_share)
    return own


def _say_nothing(_told: object) -> None:
    pass


def run() -> None:
    """`main`, and then an end at once: the interpreter's own takes torch seconds, in which we would outlive our job."""
    status = 0
    try:
        main()
    except (Exception, Interrupted):
        log.exception("rank_failed")
        status = 1
    os._exit(status)


if __name__ == "__main__":
    run()
