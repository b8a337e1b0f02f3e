from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.config import TrainConfig
from models.sampling import contact_sheet, render
from models.text import HashedEncoder
from worker.training import snapshots
from worker.training.data import shown_rows
from worker.training.loop import settle
from worker.training.snapshots import SnapshotTaker, wait_minutes
from worker.training.state import TrainingState
from worker.training.steps import train_step
from worker.training.texts import Texts


def test_waits_double_from_the_first_to_the_longest(tiny_config: Callable[..., TrainConfig]) -> None:
    config = tiny_config(first_snapshot_minutes=0.4, snapshot_growth=2.0, longest_snapshot_minutes=5.0)
    minutes, waits = 0.0, []
    for _ in range(7):
        waits.append(wait_minutes(config, minutes))
        minutes += waits[-1]
    assert waits == pytest.approx([0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_waits_can_stay_the_same(tiny_config: Callable[..., TrainConfig]) -> None:
    config = tiny_config(first_snapshot_minutes=2.0, snapshot_growth=1.0)
    assert [wait_minutes(config, minutes) for minutes in (0.0, 2.0, 100.0)] == [2.0, 2.0, 2.0]


def test_a_snapshot_is_due_by_the_minutes_trained_and_again_only_after_the_next_wait(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config(first_snapshot_minutes=0.4))
    taker = SnapshotTaker(state, pictures)
    state.minutes = 0.39
    assert not taker.due(state)
    state.minutes = 0.41
    assert taker.due(state)
    taker.take(state)
    assert not taker.due(state)


def test_taking_one_shows_sixteen_seeds_of_the_average_generator_and_disturbs_nothing(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    with_one, without = (TrainingState.start(tiny_config()) for _ in range(2))
    reals = [settle(state, pictures, torch.device("cpu")) for state in (with_one, without)]
    train_step(with_one, reals[0], 0.0)
    train_step(without, reals[1], 0.0)
    snapshot = SnapshotTaker(with_one, pictures).take(with_one)
    expected = contact_sheet(render(with_one.generator_ema, range(16), batch=8), 4)
    np.testing.assert_array_equal(np.asarray(snapshot.sheet), np.asarray(expected))
    assert snapshot.state() == with_one.to_bytes()
    train_step(with_one, reals[0], 0.5)
    train_step(without, reals[1], 0.5)
    without.generator_ema.w_avg.copy_(with_one.generator_ema.w_avg)  # all that a snapshot sets
    assert with_one.to_bytes() == without.to_bytes()


def test_w_avg_is_the_mean_of_w_when_a_snapshot_is_taken(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    SnapshotTaker(state, pictures).take(state)
    z = np.random.RandomState(7).randn(20_000, state.config.network.z_dim).astype(np.float32)
    mean = state.generator_ema.mapping(torch.from_numpy(z))[:, 0].mean(dim=0)
    torch.testing.assert_close(state.generator_ema.w_avg, mean, atol=0.05, rtol=0)
    assert state.generator_ema.w_avg.abs().max() > 0.1


def test_every_snapshot_is_measured_against_the_dataset(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    measured = SnapshotTaker(state, pictures).take(state).metrics
    assert {"swd", "swd_floor", "precision", "recall", "coverage", "coverage_floor"} <= measured.keys()
    assert measured["swd"] > measured["swd_floor"]


def test_a_handful_of_pictures_is_not_measured(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    state = TrainingState.start(tiny_config())
    snapshot = SnapshotTaker(state, pictures[:8]).take(state)
    assert (snapshot.metrics, snapshot.concerns) == ({}, ())


def test_a_g_that_knows_texts_shows_the_same_captions_of_shown_pictures_on_every_sheet(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((100, 32, 32, 3), np.uint8)
    texts = Texts.of([f"picture {row}" for row in range(100)], [None] * 100, HashedEncoder(256))
    asked: list[str] = []

    def painted(_generator: object, seeds: range, *, prompts: list[str], batch: int) -> np.ndarray:
        assert len(seeds) == len(prompts) <= batch == 8
        asked.extend(prompts)
        return np.random.default_rng(0).integers(0, 256, (len(seeds), 32, 32, 3), dtype=np.uint8)

    monkeypatch.setattr(snapshots, "render", painted)
    state = TrainingState.start(tiny_config(shape=told))
    taker = SnapshotTaker(state, images, texts)
    taker.take(state)
    taker.take(state)
    first, second = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    assert first == second
    sheet, measured = first[:16], first[16:]
    assert len(set(sheet)) == len(sheet) == 16
    shown, held = shown_rows(state.config, 100)
    assert len(held) == 20
    assert set(measured) <= {f"picture {row}" for row in shown}
    assert len(set(measured)) > 40


def test_what_a_measurement_gives_cause_to_worry_about_comes_with_its_pictures(
    tiny_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    state = TrainingState.start(tiny_config())
    shown, _ = shown_rows(state.config, 200)

    def copied(_generator: object, seeds: range, *, prompts: object, batch: int) -> np.ndarray:
        assert batch == 8
        assert prompts is None
        return images[np.resize(shown, len(seeds))]

    monkeypatch.setattr(snapshots, "render", copied)
    snapshot = SnapshotTaker(state, images).take(state)
    assert [concern.kind for concern in snapshot.concerns] == ["copying"]
    assert snapshot.concerns[0].evidence is not None
