"""Snapshots: when one is due, what its sheet shows, and how good its pictures are."""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.checkpoint import LONGEST_CAPTION, MOST_CAPTIONS
from models.config import TrainConfig
from models.latents.truncation import update_w_avg
from models.metrics.concerns import concerns
from models.metrics.report import Reference
from models.sampling import contact_sheet, render
from worker.training.data import shown_rows
from worker.training.report import Concern, Snapshot, spent
from worker.training.state import TrainingState
from worker.training.texts import Texts

SHEET_SEEDS = range(16)  # the same on every sheet, so that sheets side by side show the growth
SHEET_COLUMNS = 4
REPORT_SEED = 1_000_000  # first seed of the measured pictures, away from those on the sheet
MEASURED = 256  # painted pictures a snapshot: a second or two of a CPU, and enough for a trend


def wait_minutes(config: TrainConfig, minutes: float) -> float:
    """How long after `minutes` of training the next snapshot is due.

    Waits grow by snapshot_growth, so the n-th ends at minute m = first * (growth^n - 1) / (growth - 1), and the one
    after it, first * growth^n, is first + m * (growth - 1): nothing but the minutes has to be remembered.
    """
    wait = config.first_snapshot_minutes + minutes * (config.snapshot_growth - 1)
    return min(wait, config.longest_snapshot_minutes)


class BrokenOff(Exception):
    """The training has to stop: there is no time for a snapshot."""


class SnapshotTaker:
    """Takes snapshots of one training, growing rarer, and measures each."""

    def __init__(self, state: TrainingState, images: np.ndarray, texts: Texts | None = None) -> None:
        self._config = state.config
        self._images = images
        self._taken_at = state.images_seen
        self._due_minutes = state.minutes + wait_minutes(state.config, state.minutes)
        self._reference: Reference | None = None
        self._should_stop: Callable[[], bool] = lambda: False
        self._history: list[dict[str, float]] = []
        self._told: set[str] = set()
        self._prompts: list[str] | None = None
        self._captions: tuple[str, ...] = ()
        if texts is not None and state.generator_ema.text is not None:
            shown, _ = shown_rows(state.config, len(images))
            self._prompts = texts.prompts(shown, MEASURED, state.config.seed)
            self._captions = texts.sample(shown, MOST_CAPTIONS, LONGEST_CAPTION)

    def due(self, state: TrainingState) -> bool:
        """Whether it is time for the next one; the end of the budget has one of its own."""
        return state.minutes >= self._due_minutes and spent(state) < 1

    def missing(self, state: TrainingState) -> bool:
        """Whether anything was learnt since the last one."""
        return state.images_seen > self._taken_at

    def take(self, state: TrainingState, should_stop: Callable[[], bool] = lambda: False) -> Snapshot:
        """The training's present moment. Raises BrokenOff as soon as `should_stop`: large pictures take minutes."""
        update_w_avg(state.generator_ema)
        state.generator_ema.captions = self._captions
        self._should_stop = should_stop
        sheet = contact_sheet(self._paint(state, SHEET_SEEDS), SHEET_COLUMNS)
        metrics, found = self._measure(state)
        self._taken_at = state.images_seen
        self._due_minutes = state.minutes + wait_minutes(self._config, state.minutes)
        return Snapshot(
            kimg=state.kimg,
            minutes=state.minutes,
            sheet=sheet,
            generator=state.generator_ema,
            discriminator=state.discriminator,
            metrics=metrics,
            state=functools.cache(state.to_bytes),  # large, and wanted more than once
            concerns=found,
        )

    def _measure(self, state: TrainingState) -> tuple[dict[str, float], tuple[Concern, ...]]:
        """What was measured, and what in it the artist should know of; nothing where there are too few pictures."""
        if self._reference is None:
            self._reference = Reference.of(self._images, *shown_rows(self._config, len(self._images)), count=MEASURED)
        if self._reference.reals is None:
            return {}, ()
        fakes = self._paint(state, range(REPORT_SEED, REPORT_SEED + self._reference.count))
        metrics = self._reference.measure(fakes)
        self._history.append(metrics)
        sheets = {"collapse": self._reference.twins_sheet, "copying": self._reference.copies_sheet}
        found = concerns(self._history)
        news = tuple(
            Concern(concern.kind, concern.message, state.kimg, sheets[concern.kind](fakes))
            for concern in found
            if concern.kind not in self._told
        )
        self._told = {concern.kind for concern in found}  # what stays is said once, and again when it comes back
        return metrics, news

    def _paint(self, state: TrainingState, seeds: range) -> NDArray[np.uint8]:
        """Pictures of G_ema, told what real pictures show where the networks know texts."""
        pictures = []
        for start in range(0, len(seeds), state.micro_batch):  # as memory allows
            if self._should_stop():
                raise BrokenOff
            part = slice(start, start + state.micro_batch)
            prompts = self._prompts and self._prompts[: len(seeds)][part]
            pictures.append(render(state.generator_ema, seeds[part], prompts=prompts, batch=state.micro_batch))
        return np.concatenate(pictures)
