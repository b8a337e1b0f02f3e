"""Snapshots: when one is due, what its sheet shows, and how good its pictures are."""

import time

import numpy as np

from models.config import TrainConfig
from models.latents.truncation import update_w_avg
from models.metrics.report import REPORT_IMAGES, quick_report
from models.sampling import contact_sheet, render
from worker.training.report import Snapshot, spent
from worker.training.state import TrainingState

SHEET_SEEDS = range(16)  # the same on every sheet, so that sheets side by side show the growth
SHEET_COLUMNS = 4
REPORT_SEED = 1_000_000  # first seed of the measured pictures, away from those on the sheet
MEASURING_SHARE = 0.02  # of the time, at most, goes to measuring
FEWEST_MEASURED = 16  # pictures of each set; neighbourhoods and distances of fewer say nothing
EXPECTED_MEASURING_SECONDS = 5.0  # until the first measurement says better


def wait_minutes(config: TrainConfig, minutes: float) -> float:
    """How long after `minutes` of training the next snapshot is due.

    Waits grow by snapshot_growth, so the n-th ends at minute m = first * (growth^n - 1) / (growth - 1), and the one
    after it, first * growth^n, is first + m * (growth - 1): nothing but the minutes has to be remembered.
    """
    wait = config.first_snapshot_minutes + minutes * (config.snapshot_growth - 1)
    return min(wait, config.longest_snapshot_minutes)


class SnapshotTaker:
    """Takes snapshots of one training, growing rarer, and measures as many of them as the time allows."""

    def __init__(self, state: TrainingState, images: np.ndarray) -> None:
        self._config = state.config
        self._taken_at = state.images_seen
        self._due_minutes = state.minutes + wait_minutes(state.config, state.minutes)
        self._measured = time.perf_counter()
        self._measuring_seconds = EXPECTED_MEASURING_SECONDS
        # Twice as many reals as painted pictures: the report compares the reals with each other too.
        drawn = np.random.default_rng(state.config.seed).permutation(len(images))[: 2 * REPORT_IMAGES]
        self._reals = images[np.sort(drawn)]

    def due(self, state: TrainingState) -> bool:
        """Whether it is time for the next one; the end of the budget has one of its own."""
        return state.minutes >= self._due_minutes and spent(state) < 1

    def missing(self, state: TrainingState) -> bool:
        """Whether anything was learnt since the last one."""
        return state.images_seen > self._taken_at

    def take(self, state: TrainingState, *, measure: bool = False) -> Snapshot:
        """The training's present moment; `measure`: whatever the time it takes."""
        update_w_avg(state.generator_ema)
        sheet = contact_sheet(render(state.generator_ema, SHEET_SEEDS), SHEET_COLUMNS)
        metrics = self._measure(state) if measure or self._time_to_measure() else {}
        self._taken_at = state.images_seen
        self._due_minutes = state.minutes + wait_minutes(self._config, state.minutes)
        return Snapshot(
            kimg=state.kimg,
            minutes=state.minutes,
            sheet=sheet,
            generator=state.generator_ema,
            metrics=metrics,
            state=state.to_bytes,
        )

    def _time_to_measure(self) -> bool:
        return self._measuring_seconds <= MEASURING_SHARE * (time.perf_counter() - self._measured)

    def _measure(self, state: TrainingState) -> dict[str, float]:
        start = time.perf_counter()
        count = len(self._reals) // 2
        if count < FEWEST_MEASURED:
            return {}
        fakes = render(state.generator_ema, range(REPORT_SEED, REPORT_SEED + count))
        metrics = quick_report(self._reals, fakes)
        self._measured = time.perf_counter()
        self._measuring_seconds = self._measured - start
        return metrics
