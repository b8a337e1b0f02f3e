"""Training from the first step to the end of the budget: a pure core, all effects in its callbacks."""

import time
import traceback
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch

from app.core.errors import TrainingDiverged
from models.config import TrainConfig
from models.errors import ConfigInvalid
from worker.training.data import RealImages, shown_rows
from worker.training.guard import Guard, ran_out_of_memory, take_smaller_passes
from worker.training.ranks import ALONE, MemoryRanOutElsewhere, Moment, Ranks
from worker.training.report import Concern, Meter, Snapshot, Tick, TrainingResult, spent
from worker.training.snapshots import BrokenOff, SnapshotTaker
from worker.training.state import TrainingState
from worker.training.steps import train_step
from worker.training.texts import Texts

__all__ = ["Concern", "Snapshot", "Tick", "TrainingResult", "train"]


def train(
    config: TrainConfig,
    images: np.ndarray,
    *,
    on_tick: Callable[[Tick], None],
    on_snapshot: Callable[[Snapshot], None],
    should_stop: Callable[[], bool],
    on_stop: Callable[[TrainingState], bool] = lambda state: False,
    on_concern: Callable[[Concern], None] = lambda concern: None,
    texts: Texts | None = None,
    state: TrainingState | None = None,
    device: str = "auto",
    ranks: Ranks = ALONE,
) -> TrainingResult:
    """Train on images, uint8 [N, H, W, C], until the budget ends or `should_stop`, which is asked before every step.

    texts: their captions and labels, which networks that know texts take. state: carry on from there, with the same
    config. Ticks come every few seconds; snapshots grow rarer, and one more is taken at the end. When a loss or weight
    is no longer a number the training goes back to its last snapshot, once; TrainingDiverged says that it was in vain.
    on_stop: told of the state in which a training stops before its time; True: there is time for no last snapshot.

    ranks: this process among those that train together, all of them called with the same state and dataset. Only the
    first takes snapshots; what any of them does otherwise all do at the same step.
    """
    if state is None:
        state = TrainingState.start(config)
    elif state.config != config:
        raise ConfigInvalid("The state is of a training with other settings; continue it with its own.")
    run = _Run(state, images, texts, choose_device(device), ranks)
    stopped = False
    while run.left and not (stopped := ranks.meet(stop=should_stop()).stop):
        try:
            moment = run.step()
            if moment.tick or moment.snapshot or not run.left:
                on_tick(run.tick())  # before a snapshot, so that none is taken of a broken G
        except TrainingDiverged as error:
            on_concern(run.go_back(error))
            continue
        except RuntimeError as error:
            if not ran_out_of_memory(error):
                raise
            on_concern(run.take_smaller_passes(error))
            continue
        if moment.snapshot:
            with suppress(BrokenOff):  # then the next question is answered with a stop
                run.snapshot(on_snapshot, on_concern, should_stop)
    missing = run.is_good(on_tick) and run.snapshots is not None and run.snapshots.missing(run.state)
    if missing and not (stopped and on_stop(run.state)):
        run.snapshot(on_snapshot, on_concern, lambda: should_stop() and False)  # asked only as a sign of life
    run.reals.close()
    return TrainingResult(run.state.kimg, run.state.minutes, stopped)


class _Run:
    """What a training works with between its first step and its last."""

    def __init__(
        self, state: TrainingState, images: np.ndarray, texts: Texts | None, device: torch.device, ranks: Ranks
    ) -> None:
        self.state = state
        self.meter = Meter()
        self.snapshots = SnapshotTaker(state, images, texts) if ranks.first else None
        self.reals = settle(state, images, device, texts, ranks)
        self._images, self._texts, self._device, self._ranks = images, texts, device, ranks
        self._guard = Guard(state)
        self._started = time.perf_counter() - state.minutes * 60

    @property
    def left(self) -> bool:
        """Whether there is any of the budget left."""
        return spent(self.state) < 1

    def step(self) -> Moment:
        """Learn from one batch, and agree on what is due."""
        losses = train_step(self.state, self.reals, spent(self.state), self._texts, self._ranks)
        self.meter.add(losses, self.state.config.batch_size)
        self.state.minutes = (time.perf_counter() - self._started) / 60
        snapshot_due = self.snapshots is not None and self.snapshots.due(self.state)
        moment = self._ranks.meet(minutes=self.state.minutes, tick=self.meter.due, snapshot=snapshot_due)
        self.state.minutes = moment.minutes
        return moment

    def tick(self) -> Tick:
        """What happened since the last tick. Raises TrainingDiverged."""
        return self.meter.tick(self.state)

    def is_good(self, on_tick: Callable[[Tick], None]) -> bool:
        """Whether what was learnt since the last tick, which is told, may be kept. Numbers that broke on the last steps
        before a stop are not: the next attempt goes back to before them."""
        if not self.meter.images:
            return True
        try:
            on_tick(self.tick())
        except TrainingDiverged:
            return False
        return True

    def go_back(self, error: TrainingDiverged) -> Concern:
        """Return to the last good state, and slower; TrainingDiverged when that has just failed."""
        self.state, concern = self._guard.go_back(error, self.state)
        self._settle_again()
        self.meter.restart()
        return concern

    def take_smaller_passes(self, error: RuntimeError) -> Concern:
        """Go on with fewer images a pass: each of several processes, from where the first one is."""
        if self._ranks.count > 1:
            if not isinstance(error, MemoryRanOutElsewhere):
                self._ranks.meet(out_of_memory=True)
            traceback.clear_frames(error.__traceback__)  # they hold on to the memory of the pass that failed
            self.state = TrainingState.from_bytes(self._ranks.broadcast(self.state.to_bytes()))
            self._settle_again()
            share = self._ranks.share_of(self.state.config.batch_size)
            self.state.micro_batch = min(self.state.micro_batch, share)
        return take_smaller_passes(self.state, error)

    def _settle_again(self) -> None:
        self.reals.close()
        self.reals = settle(self.state, self._images, self._device, self._texts, self._ranks)

    def snapshot(
        self,
        on_snapshot: Callable[[Snapshot], None],
        on_concern: Callable[[Concern], None],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take a snapshot, tell of it and of what it shows, and remember the state as good. Raises BrokenOff."""
        if self.snapshots is None:
            self._guard.keep(self.state.to_bytes())
        else:
            snapshot = self.snapshots.take(self.state, should_stop)
            on_snapshot(snapshot)
            for concern in snapshot.concerns:
                on_concern(concern)
            self._guard.keep(snapshot.state())
        self.meter.restart()


def settle(
    state: TrainingState, images: np.ndarray, device: torch.device, texts: Texts | None = None, ranks: Ranks = ALONE
) -> RealImages:
    """Bring the networks to the device, and the dataset to where the state left off."""
    if texts is not None and state.steps == 0:
        state.weigh(texts.weights)
    state.to(device, torch.channels_last)
    return RealImages(
        images,
        batch_size=state.config.batch_size,
        mirror=state.config.mirror,
        seed=state.config.seed,
        drawn=state.images_drawn,
        device=device,
        memory_format=torch.channels_last,
        rows=shown_rows(state.config, len(images))[0],
        share=(ranks.rank, ranks.count),
    )


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto": the GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
