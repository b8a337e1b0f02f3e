from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from app.core.errors import TrainingDiverged
from models.config import TrainConfig
from models.networks.discriminator import Discriminator
from worker.training import loop
from worker.training.guard import Guard, ran_out_of_memory, take_smaller_passes
from worker.training.loop import settle
from worker.training.report import Concern, Snapshot
from worker.training.state import TrainingState
from worker.training.steps import train_step

CPU = torch.device("cpu")
BROKEN = TrainingDiverged("The loss became nan.")
Step = Callable[..., dict[str, torch.Tensor]]


def advanced(config: TrainConfig, pictures: np.ndarray, steps: int) -> TrainingState:
    state = TrainingState.start(config)
    reals = settle(state, pictures, CPU)
    for _ in range(steps):
        train_step(state, reals, 0.0)
    return state


def test_going_back_is_to_the_last_good_state_bit_for_bit_at_half_the_rate(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = advanced(tiny_config(), pictures, 3)
    guard = Guard(state)
    expected = TrainingState.from_bytes(state.to_bytes())
    reals = settle(state, pictures, CPU)
    for _ in range(2):
        train_step(state, reals, 0.0)
    state.minutes, state.micro_batch = 7.0, 4
    with torch.no_grad():
        next(state.generator.parameters()).fill_(float("nan"))
    back, concern = guard.go_back(BROKEN, state)
    assert (back.rate_scale, back.minutes, back.micro_batch) == (0.5, 7.0, 4)
    assert (concern.kind, concern.kimg) == ("rolled_back", 0.04)
    assert concern.message == "The loss became nan. Went back to 0.0 kimg, and on at half the learning rate."
    back.rate_scale, back.minutes, back.micro_batch = expected.rate_scale, expected.minutes, expected.micro_batch
    assert back.to_bytes() == expected.to_bytes()


def test_failing_again_where_it_went_back_to_is_the_end_with_both_reasons(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = advanced(tiny_config(), pictures, 1)
    guard = Guard(state)
    back, _ = guard.go_back(BROKEN, state)
    with pytest.raises(TrainingDiverged, match=r"The loss became nan\. It had just been taken back.*in vain"):
        guard.go_back(BROKEN, back)


def test_each_good_state_in_between_earns_another_try_at_half_the_rate_again(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = advanced(tiny_config(), pictures, 1)
    guard = Guard(state)
    for times in range(1, 4):
        state, _ = guard.go_back(BROKEN, state)
        assert state.rate_scale == 0.5**times
        guard.keep(state.to_bytes())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: RuntimeError, expected: bool) -> None:
    assert ran_out_of_memory(error) == expected


def test_a_pass_is_halved_until_two_pictures_are_left(tiny_config: Callable[..., TrainConfig]) -> None:
    state, error = TrainingState.start(tiny_config()), torch.OutOfMemoryError("full")
    for expected in (4, 2):
        concern = take_smaller_passes(state, error)
        assert state.micro_batch == expected
    assert concern.kind == "out_of_memory"
    assert "with 4 images a pass; going on with 2, which add up to batches of 8 as before" in concern.message
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        take_smaller_passes(state, error)
    assert state.micro_batch == 2


class Trainer:
    """Trains through the loop with steps that go wrong, and keeps what it says."""

    def __init__(self) -> None:
        self.concerns: list[Concern] = []
        self.snapshots: list[Snapshot] = []
        self.states: list[bytes] = []

    def train(self, config: TrainConfig, pictures: np.ndarray) -> loop.TrainingResult:
        return loop.train(
            config,
            pictures,
            on_tick=lambda tick: None,
            on_snapshot=self.keep,
            on_concern=self.concerns.append,
            should_stop=lambda: False,
            device="cpu",
        )

    def keep(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.states.append(snapshot.state())


def poisoned(at: set[int], real_step: Step = train_step) -> Step:
    """Steps the nth of which, counting every one that was tried, leaves a weight that is no number."""
    tried = 0

    def step(state: TrainingState, *arguments: Any) -> dict[str, torch.Tensor]:
        nonlocal tried
        losses = real_step(state, *arguments)
        tried += 1
        if tried in at:
            with torch.no_grad():
                for parameter in state.generator_ema.parameters():
                    parameter[0] = float("nan")
        return losses

    return step


def eager(tiny_config: Callable[..., TrainConfig], **settings: Any) -> TrainConfig:
    """A snapshot after every step, and so a good state."""
    return tiny_config(first_snapshot_minutes=1e-6, snapshot_growth=1.0, total_kimg=0.04, **settings)


def test_a_training_that_breaks_once_warns_goes_back_and_ends_well(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", poisoned({3}))
    trainer = Trainer()
    result = trainer.train(eager(tiny_config), pictures)
    assert (result.kimg, result.stopped) == (0.04, False)
    assert [concern.kind for concern in trainer.concerns] == ["rolled_back"]
    assert [snapshot.kimg for snapshot in trainer.snapshots] == [0.008, 0.016, 0.024, 0.032, 0.04]
    ends = [TrainingState.from_bytes(state) for state in trainer.states]
    assert [end.rate_scale for end in ends] == [1, 1, 0.5, 0.5, 0.5]
    # What was learnt after going back is what a training at half the rate learns from the last good state.
    again = ends[1]
    again.rate_scale = 0.5
    train_step(again, settle(again, pictures, CPU), 0.016 / 0.04)
    expected, found = again.generator.state_dict(), ends[2].generator.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


def test_a_training_that_breaks_in_its_very_last_step_goes_back_too(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", poisoned({5}))
    trainer = Trainer()
    assert trainer.train(eager(tiny_config), pictures).kimg == 0.04
    assert [concern.kind for concern in trainer.concerns] == ["rolled_back"]


def test_a_training_that_breaks_twice_in_a_row_ends_with_the_reason(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", poisoned({3, 4}))
    trainer = Trainer()
    with pytest.raises(TrainingDiverged, match=r"NaN or infinite at 0\.0 kimg.*in vain"):
        trainer.train(eager(tiny_config), pictures)
    assert [snapshot.kimg for snapshot in trainer.snapshots] == [0.008, 0.016]


@pytest.mark.parametrize("fits", [4, 2])
def test_a_training_whose_passes_are_too_large_goes_on_with_smaller_ones(
    fits: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Discriminator.forward

    def hungry(discriminator: Discriminator, x: torch.Tensor) -> Any:
        if len(x) > fits and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return judge(discriminator, x)

    monkeypatch.setattr(Discriminator, "forward", hungry)
    trainer = Trainer()
    assert trainer.train(tiny_config(total_kimg=0.024), pictures).kimg == 0.024
    assert [concern.kind for concern in trainer.concerns] == ["out_of_memory"] * (3 - fits // 2)
    end = TrainingState.from_bytes(trainer.states[-1])
    assert (end.micro_batch, end.images_seen) == (fits, 24)
    start = TrainingState.start(end.config)
    for ours, theirs in ((start.discriminator, end.discriminator), (start.generator, end.generator)):
        changed = zip(ours.parameters(), theirs.parameters(), strict=True)
        assert not any(torch.equal(before, after) for before, after in changed)


def test_a_training_that_not_even_the_smallest_pass_fits_ends_with_the_error(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Discriminator, "forward", full)
    trainer = Trainer()
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train(tiny_config(), pictures)
    assert [concern.kind for concern in trainer.concerns] == ["out_of_memory"] * 2
