from collections.abc import Callable

import numpy as np
import pytest
import torch

from models.config import TrainConfig
from models.sampling import contact_sheet, render
from worker.training.loop import settle
from worker.training.snapshots import SnapshotTaker, wait_minutes
from worker.training.state import TrainingState
from worker.training.steps import train_step


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
    snapshot = SnapshotTaker(with_one, pictures).take(with_one, measure=True)
    expected = contact_sheet(render(with_one.generator_ema, range(16)), 4)
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


def test_measuring_waits_until_it_is_cheap_beside_the_training(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    taker = SnapshotTaker(state, pictures)
    assert taker.take(state).metrics == {}
    measured = taker.take(state, measure=True).metrics
    assert {"swd", "swd_floor", "precision", "recall", "coverage", "coverage_floor"} <= measured.keys()
    assert measured["swd"] > measured["swd_floor"]


def test_a_handful_of_pictures_is_not_measured(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    state = TrainingState.start(tiny_config())
    assert SnapshotTaker(state, pictures[:8]).take(state, measure=True).metrics == {}
