"""What a training says of itself while it runs, and how often."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from app.core.errors import TrainingDiverged
from models.config import TrainConfig
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from models.objectives.schedules import budget_progress
from worker.training.state import TrainingState

TICK_SECONDS = 3.0  # often enough for a progress bar, rare enough to cost nothing


@dataclass(frozen=True)
class Tick:
    """Where a training stands, and how it went since the last tick."""

    kimg: float
    minutes: float
    progress: float  # 0 to 1
    losses: dict[str, float]  # means since the last tick
    images_per_second: float
    seconds_per_kimg: float
    eta_seconds: float
    memory_bytes: int  # most that was ever in use


@dataclass(frozen=True)
class Concern:
    """Something the artist should know of, with the pictures that show it where there are any."""

    kind: str  # rolled_back, out_of_memory, collapse or copying
    message: str
    kimg: float
    evidence: Image | None = None


@dataclass(frozen=True)
class Snapshot:
    """A moment worth keeping. `generator` is G_ema and trains on: use it and `state` before the callback returns."""

    kimg: float
    minutes: float
    sheet: Image  # the same 16 seeds every time
    generator: Generator
    discriminator: Discriminator
    metrics: dict[str, float]  # empty where measuring would have taken too much of the time
    state: Callable[[], bytes]
    concerns: tuple[Concern, ...] = ()


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended: its budget used up, or stopped before."""

    kimg: float
    minutes: float
    stopped: bool


class Meter:
    """Sums losses on the device and times them; reading them, which makes a GPU wait, is left to `tick`."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin to count and time anew."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.images = 0
        self._since = time.perf_counter()

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """One step's losses, and how many real images it showed."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1
        self.images += images

    @property
    def due(self) -> bool:
        """Whether it is time for a tick."""
        return time.perf_counter() - self._since >= TICK_SECONDS

    def tick(self, state: TrainingState) -> Tick:
        """What was counted since the last tick, one step at least. Raises TrainingDiverged for NaN or infinity."""
        losses = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        seconds_per_kimg = (time.perf_counter() - self._since) / self.images * 1000
        self.restart()
        require_finite(losses, state)
        return Tick(
            kimg=state.kimg,
            minutes=state.minutes,
            progress=spent(state),
            losses=losses,
            images_per_second=1000 / seconds_per_kimg,
            seconds_per_kimg=seconds_per_kimg,
            eta_seconds=eta_seconds(state.config, state.kimg, state.minutes, seconds_per_kimg),
            memory_bytes=memory_bytes(state.device),
        )


def require_finite(losses: dict[str, float], state: TrainingState) -> None:
    """Raise TrainingDiverged unless every loss, and every weight of G_ema, is a number."""
    for name, loss in losses.items():
        if not abs(loss) < float("inf"):
            raise _diverged(f"The {name}'s loss became {loss:.3g}", state)
    if not all(bool(weights.isfinite().all()) for weights in state.generator_ema.parameters()):
        raise _diverged("The generator's weights became NaN or infinite", state)


def _diverged(what: str, state: TrainingState) -> TrainingDiverged:
    return TrainingDiverged(f"{what} at {state.kimg:.1f} kimg; lower learning_rate or raise penalty_gamma.")


def spent(state: TrainingState) -> float:
    """The part of the budget that is used up, 0 to 1."""
    return budget_progress(state.config, state.kimg, state.minutes)


def eta_seconds(config: TrainConfig, kimg: float, minutes: float, seconds_per_kimg: float) -> float:
    """Seconds until the budget that ends first is used up, at this speed."""
    waits = []
    if config.total_kimg is not None:
        waits.append((config.total_kimg - kimg) * seconds_per_kimg)
    if config.max_minutes is not None:
        waits.append((config.max_minutes - minutes) * 60)
    return max(0.0, min(waits))


def memory_bytes(device: torch.device) -> int:
    """The most memory in use so far: of the GPU where one trains, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
