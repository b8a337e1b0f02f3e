import math
import resource
from collections.abc import Callable

import pytest
import torch

from app.core.errors import TrainingDiverged
from models.config import TrainConfig
from worker.training.report import Meter, eta_seconds, memory_bytes
from worker.training.state import TrainingState


def test_a_tick_reports_the_mean_of_each_loss_over_the_steps_that_had_it(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    state = TrainingState.start(tiny_config(total_kimg=0.1))
    state.images_seen = 25
    meter = Meter()
    meter.add({"discriminator": torch.tensor(1.0), "penalty": torch.tensor(4.0)}, images=8)
    meter.add({"discriminator": torch.tensor(2.0)}, images=8)
    tick = meter.tick(state)
    assert tick.losses == {"discriminator": 1.5, "penalty": 4.0}
    assert (tick.kimg, tick.progress) == (0.025, 0.25)
    assert tick.images_per_second * tick.seconds_per_kimg == pytest.approx(1000)
    assert tick.eta_seconds == pytest.approx(0.075 * tick.seconds_per_kimg)


def test_a_tick_counts_anew_after_the_last(tiny_config: Callable[..., TrainConfig]) -> None:
    state = TrainingState.start(tiny_config())
    meter = Meter()
    meter.add({"generator": torch.tensor(100.0)}, images=8)
    meter.tick(state)
    assert meter.images == 0
    meter.add({"generator": torch.tensor(1.0)}, images=8)
    assert meter.tick(state).losses == {"generator": 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_training_though_later_ones_were_fine(
    value: float, tiny_config: Callable[..., TrainConfig]
) -> None:
    state = TrainingState.start(tiny_config())
    state.images_seen = 12_340
    meter = Meter()
    for loss in (1.0, value, 1.0):
        meter.add({"generator": torch.tensor(loss)}, images=8)
    with pytest.raises(
        TrainingDiverged, match=r"generator's loss became .* at 12\.3 kimg; lower learning_rate or raise"
    ):
        meter.tick(state)


def test_weights_that_are_no_numbers_end_the_training(tiny_config: Callable[..., TrainConfig]) -> None:
    state = TrainingState.start(tiny_config())
    next(iter(state.generator_ema.parameters()))[0] = math.nan
    meter = Meter()
    meter.add({"generator": torch.tensor(1.0)}, images=8)
    with pytest.raises(TrainingDiverged, match="weights became NaN"):
        meter.tick(state)


@pytest.mark.parametrize(
    ("total_kimg", "max_minutes", "expected"),
    [(100.0, None, 500.0), (None, 10.0, 300.0), (100.0, 10.0, 300.0), (100.0, 60.0, 500.0), (40.0, None, 0.0)],
)
def test_the_time_left_is_that_of_the_budget_which_ends_first(
    total_kimg: float | None, max_minutes: float | None, expected: float, tiny_config: Callable[..., TrainConfig]
) -> None:
    config = tiny_config(total_kimg=total_kimg, max_minutes=max_minutes)
    assert eta_seconds(config, kimg=50.0, minutes=5.0, seconds_per_kimg=10.0) == pytest.approx(expected)


def test_memory_is_counted_in_bytes() -> None:
    page = resource.getpagesize()
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        resident = int(statm.read().split()[1]) * page
    assert resident * 0.9 < memory_bytes(torch.device("cpu")) < resident * 50
