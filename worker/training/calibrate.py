"""How fast a training would run here: a few real steps of it, on noise, in a process of their own.

`python -m worker.training.calibrate` reads a TrainConfig from stdin and prints a line of JSON.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from app.core.calibrations import Machine, Speed
from app.core.errors import GanvasError
from models.config import TrainConfig
from worker.horse import tied_to
from worker.training.data import RealImages
from worker.training.loop import choose_device, settle
from worker.training.report import memory_bytes
from worker.training.state import TrainingState
from worker.training.steps import train_step
from worker.training.texts import Texts

MEASURING_SECONDS = 4.0  # of steps; the middle of several is steady enough for minutes that are told rounded
LONGEST_PAIR_SECONDS = 4.0  # one step with the penalty and one without; larger batches are worked out from smaller ones
PROBE_BATCH = 4  # images; shows about how long a whole batch will take
TEXTS = 64  # different captions of the noise
WORDS_A_TEXT = 8  # features that such a caption has
TIMEOUT_SECONDS = 240.0
POLL_SECONDS = 0.2
KILLED = -9  # a process's status when the system took it down, as it does when memory runs out


class CalibrationFailed(GanvasError):
    """The steps could not be run; the message says why."""


def this_machine(device: str, threads: int, *, gpu_share: float = 1.0) -> Machine:
    """The machine as far as a training's speed hangs on it; gpu_share: of a GPU's memory, what training may take."""
    where = choose_device(device)
    if where.type == "cuda":
        properties = torch.cuda.get_device_properties(where)
        return Machine(properties.name, int(gpu_share * properties.total_memory), threads, torch.__version__)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(_processor(), memory, threads, torch.__version__)


def measure_apart(
    config: str, device: str, threads: int, should_stop: Callable[[], bool] = lambda: False
) -> Speed | None:
    """`measure` a TrainConfig, as JSON, in a fresh process, whose peak of memory is its own; None when stopped.

    Raises CalibrationFailed.
    """
    command = [sys.executable, "-m", __name__, "--device", device, "--threads", str(threads)]
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=tied_to(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - one prctl, no locks
    )
    deadline = time.monotonic() + TIMEOUT_SECONDS
    told: str | None = config
    while True:
        try:
            out, errors = process.communicate(told, timeout=POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            told = None  # it has been sent
            if should_stop() or time.monotonic() > deadline:
                process.kill()
                process.communicate()
                if should_stop():
                    return None
                raise CalibrationFailed(f"A few steps took more than {TIMEOUT_SECONDS:.0f} seconds.") from None
    if process.returncode == KILLED:
        raise CalibrationFailed("Memory ran out.")
    if process.returncode != 0:
        raise CalibrationFailed(f"The steps failed: {(errors.strip().splitlines() or ['no reason given'])[-1]}")
    return Speed(**json.loads(out.splitlines()[-1]))


def measure(config: TrainConfig, device: torch.device) -> Speed:
    """Time real steps, those with the penalty and those without, and see how much memory they take.

    Where a whole batch would take too long, a part of it is timed, and time and memory are taken to grow with it.
    """
    config = config.model_copy(update={"holdout": False, "micro_batch": None})
    probe = _Steps(config, min(PROBE_BATCH, config.batch_size), device)
    probe.pair()  # the first steps also pay for what is only made once
    small = probe.pair()
    probe.close()
    probe_peak = memory_bytes(device)
    batch = config.batch_size
    while batch > 2 * probe.batch and small.seconds * batch / probe.batch > LONGEST_PAIR_SECONDS:
        batch //= 2
    steps = _Steps(config, batch, device)
    timed = _timed(steps, steps.pair())
    steps.close()
    peak = memory_bytes(device)
    growth = max(0, peak - probe_peak) / max(1, batch - probe.batch)  # bytes an image more
    cycle = timed.penalty_seconds + (config.penalty_interval - 1) * timed.plain_seconds
    images = batch * config.penalty_interval
    return Speed(cycle / images * 1000, int(peak + growth * (config.batch_size - batch)))


@dataclass(frozen=True)
class _Pair:
    """Seconds of a step with the penalty and of one without; the same where every step has it."""

    penalty_seconds: float
    plain_seconds: float

    @property
    def seconds(self) -> float:
        return self.penalty_seconds + self.plain_seconds


class _Steps:
    """A training on noise in batches of a given size, a pair of steps at a time."""

    def __init__(self, config: TrainConfig, batch: int, device: torch.device) -> None:
        self.batch = batch
        self._device = device
        self._state = TrainingState.start(config.model_copy(update={"batch_size": batch}))
        self._texts = None if config.network.text is None else _captions(config, 2 * batch)
        self._reals: RealImages = settle(self._state, _noise(config, 2 * batch), device, self._texts)

    def pair(self) -> _Pair:
        """One step of each kind."""
        interval = self._state.config.penalty_interval
        self._state.steps = -(-self._state.steps // interval) * interval
        with_penalty = self._step()
        return _Pair(with_penalty, self._step() if interval > 1 else with_penalty)

    def close(self) -> None:
        """Stop reading."""
        self._reals.close()

    def _step(self) -> float:
        start = time.perf_counter()
        train_step(self._state, self._reals, 0.0, self._texts)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - start


def _timed(steps: _Steps, warm: _Pair) -> _Pair:
    """The middle of the pairs that fit the time; the warm-up itself where it took all of that alone."""
    pairs = [warm]
    start = time.perf_counter()
    while warm.seconds < MEASURING_SECONDS and time.perf_counter() - start < MEASURING_SECONDS:
        pairs.append(steps.pair())
    seen = pairs[1:] or pairs
    return _Pair(
        statistics.median(pair.penalty_seconds for pair in seen), statistics.median(pair.plain_seconds for pair in seen)
    )


def _noise(config: TrainConfig, count: int) -> np.ndarray:
    side, channels = config.network.resolution, config.network.channels
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def _captions(config: TrainConfig, pictures: int) -> Texts:
    """Texts of a few features each, as those of captions are."""
    features = np.zeros((TEXTS, config.network.text.features if config.network.text else 0), dtype=np.float16)
    for row, text in enumerate(features):
        text[(row * WORDS_A_TEXT + np.arange(WORDS_A_TEXT)) % len(text)] = 1
    said = np.arange(pictures) % TEXTS
    weights = np.ones(features.shape[1], dtype=np.float32)
    return Texts(features, weights, said, said, [str(text) for text in range(TEXTS)])


def _processor() -> str:
    """The processor's name, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure what stdin says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    speed = measure(TrainConfig.model_validate_json(sys.stdin.read()), choose_device(args.device))
    sys.stdout.write(json.dumps(asdict(speed)) + "\n")


if __name__ == "__main__":
    main()
