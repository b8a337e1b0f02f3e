"""Whether advice keeps its word: minutes predicted by the calibration, and minutes that the same trainings took.

Each of six trainings, of different preset, size of dataset and resolution, is measured for some seconds as the API has
it done, given a budget in kimg that should take about as long as asked for, and then trained by the real loop,
snapshots and the measurements at them included. Passes when every one took within a quarter of what was predicted.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from app.core import advice
from models.config import TextConfig, TrainConfig
from models.presets import preset
from models.text import build_encoder
from worker.training.calibrate import measure_apart, this_machine
from worker.training.loop import train
from worker.training.texts import Texts

WANTED_ERROR = 0.25  # of the predicted minutes
COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class Run:
    """A training to foretell."""

    preset: str
    images: int
    resolution: int
    captions: bool = False


RUNS = (
    Run("tiny", 1200, 64),
    Run("tiny", 300, 32, captions=True),
    Run("classic", 1200, 64),
    Run("few-shot", 100, 64),
    Run("few-shot", 100, 128, captions=True),
    Run("quality", 2000, 32),
)


def main() -> int:
    """Print a row a run; 1 unless all were foretold well enough."""
    args = arguments()
    torch.set_num_threads(args.threads)
    print(f"{this_machine(args.device, args.threads)}")
    print(
        f"{'preset':10}{'images':>8}{'px':>5}{'texts':>7}{'s/kimg':>9}{'kimg':>8}{'predicted':>11}{'took':>7}{'ratio':>7}"
    )
    ratios = [foretell(run, args) for run in RUNS[: args.runs]]
    worst = max(abs(ratio - 1) for ratio in ratios)
    print(f"largest error {worst:.0%} (wanted: at most {WANTED_ERROR:.0%})")
    return int(worst > WANTED_ERROR)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5, help="how long a run should take; default 1.5")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="how many of the six")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def foretell(run: Run, args: argparse.Namespace) -> float:
    """Predict a training, run it, print both; what it took as a share of what was predicted."""
    config = preset(run.preset, run.resolution, text=TextConfig() if run.captions else None)
    speed = measure_apart(config.model_dump_json(), args.device, args.threads)
    assert speed is not None
    # A whole number of steps of about so long; the budget ends at the first step past it.
    snapshots = advice.minutes(0, speed.seconds_per_kimg)
    step = advice.minutes(config.batch_size / 1000, speed.seconds_per_kimg) - snapshots
    kimg = max(1, round((args.minutes - snapshots) / step)) * config.batch_size / 1000
    predicted = advice.minutes(kimg, speed.seconds_per_kimg)
    took = train_for(config.model_copy(update={"total_kimg": kimg, "max_minutes": None}), run, args.device)
    print(
        f"{run.preset:10}{run.images:8}{run.resolution:5}{'yes' if run.captions else '-':>7}"
        f"{speed.seconds_per_kimg:9.1f}{kimg:8.2f}{predicted:11.2f}{took:7.2f}{took / predicted:7.2f}",
        flush=True,
    )
    return took / predicted


def train_for(config: TrainConfig, run: Run, device: str) -> float:
    """Minutes of a whole training on flat pictures with some noise, from its first step to its last snapshot."""
    random = np.random.default_rng(0)
    flat = random.integers(0, 256, (run.images, 1, 1, 3))
    noise = random.integers(-20, 20, (run.images, run.resolution, run.resolution, 3))
    images = (flat + noise).clip(0, 255).astype(np.uint8)
    texts = None
    if config.network.text is not None:
        captions = [COLOURS[index % len(COLOURS)] for index in range(run.images)]
        texts = Texts.of(captions, [None] * run.images, build_encoder(config.network.text.encoder))
    start = time.perf_counter()
    train(
        config,
        images,
        on_tick=lambda tick: None,
        on_snapshot=lambda snapshot: None,
        should_stop=lambda: False,
        texts=texts,
        device=device,
    )
    return (time.perf_counter() - start) / 60


if __name__ == "__main__":
    sys.exit(main())
