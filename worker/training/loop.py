"""Training from the first step to the end of the budget: a pure core, all effects in its callbacks."""

import time
from collections.abc import Callable

import numpy as np
import torch

from models.config import TrainConfig
from models.errors import ConfigInvalid
from worker.training.data import RealImages
from worker.training.report import Meter, Snapshot, Tick, TrainingResult, spent
from worker.training.snapshots import SnapshotTaker
from worker.training.state import TrainingState
from worker.training.steps import train_step

__all__ = ["Snapshot", "Tick", "TrainingResult", "train"]


def train(
    config: TrainConfig,
    images: np.ndarray,
    *,
    on_tick: Callable[[Tick], None],
    on_snapshot: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
    state: TrainingState | None = None,
    device: str = "auto",
) -> TrainingResult:
    """Train on images, uint8 [N, H, W, C], until the budget ends or `should_stop`, which is asked before every step.

    state: carry on from there, with the same config. Ticks come every few seconds; snapshots grow rarer, and one more
    is taken at the end. Raises TrainingDiverged when a loss or weight is no longer a number.
    """
    if state is None:
        state = TrainingState.start(config)
    elif state.config != config:
        raise ConfigInvalid("The state is of a training with other settings; continue it with its own.")
    reals = settle(state, images, choose_device(device))
    meter, snapshots = Meter(), SnapshotTaker(state, images)
    started = time.perf_counter() - state.minutes * 60
    stopped = False
    while (progress := spent(state)) < 1 and not (stopped := should_stop()):
        meter.add(train_step(state, reals, progress), config.batch_size)
        state.minutes = (time.perf_counter() - started) / 60
        if meter.due or snapshots.due(state):  # a tick goes before a snapshot, so that none is taken of a broken G
            on_tick(meter.tick(state))
        if snapshots.due(state):
            on_snapshot(snapshots.take(state))
            meter.restart()
    if meter.images:
        on_tick(meter.tick(state))
    if snapshots.missing(state):
        on_snapshot(snapshots.take(state, measure=not stopped))
    return TrainingResult(state.kimg, state.minutes, stopped)


def settle(state: TrainingState, images: np.ndarray, device: torch.device) -> RealImages:
    """Bring the networks to the device, and the dataset to where the state left off."""
    state.to(device, torch.channels_last)
    return RealImages(
        images,
        batch_size=state.config.batch_size,
        mirror=state.config.mirror,
        seed=state.config.seed,
        drawn=state.images_drawn,
        device=device,
        memory_format=torch.channels_last,
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto": the GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
