from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.core.errors import TrainingDiverged
from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.config import TrainConfig
from models.errors import ConfigInvalid
from models.sampling import contact_sheet, render
from worker.training import loop
from worker.training.data import shown_rows
from worker.training.loop import Snapshot, Tick, TrainingResult, choose_device, train
from worker.training.state import TrainingState
from worker.training.texts import Texts


@dataclass
class Diary:
    """Trains, and keeps all that was told; states as bytes, since a snapshot's are only good while it is told."""

    stop_after: int | None = None  # questions answered with no
    texts: Texts | None = None
    ticks: list[Tick] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    states: list[bytes] = field(default_factory=list)
    questions: int = 0

    def train(self, config: TrainConfig, images: np.ndarray, state: TrainingState | None = None) -> TrainingResult:
        return train(
            config,
            images,
            on_tick=self.ticks.append,
            on_snapshot=self.keep,
            should_stop=self.asked,
            texts=self.texts,
            state=state,
            device="cpu",
        )

    def keep(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.states.append(snapshot.state())

    def asked(self) -> bool:
        self.questions += 1
        return self.stop_after is not None and self.questions > self.stop_after


def test_a_budget_in_kimg_is_trained_to_its_end(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    diary = Diary()
    result = diary.train(tiny_config(total_kimg=0.096), pictures)  # 12 steps of 8
    assert (result.kimg, result.stopped) == (0.096, False)
    assert diary.ticks[-1].progress == 1.0
    assert diary.ticks[-1].eta_seconds == 0.0
    assert [snapshot.kimg for snapshot in diary.snapshots] == [0.096]
    assert diary.snapshots[0].metrics["swd"] > 0


def test_a_budget_in_minutes_ends_too_and_the_nearer_of_two_counts(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    result = Diary().train(tiny_config(total_kimg=1000.0, max_minutes=0.01), pictures)
    assert result.minutes >= 0.01
    assert result.kimg < 1000


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_a_run_interrupted_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    stop_after: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(total_kimg=0.096)
    whole, first, second = Diary(), Diary(stop_after=stop_after), Diary()
    whole.train(config, pictures)
    interrupted = first.train(config, pictures)
    assert (interrupted.stopped, interrupted.kimg) == (True, stop_after * 0.008)
    torch.randn(7)
    second.train(config, pictures, TrainingState.from_bytes(first.states[-1]))
    ends = [TrainingState.from_bytes(diary.states[-1]) for diary in (whole, second)]
    for end in ends:
        end.minutes = 0.0  # the only thing that may differ
    assert ends[0].to_bytes() == ends[1].to_bytes()


def test_stopping_is_asked_before_every_step_and_keeps_what_was_learnt(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    diary = Diary(stop_after=3)
    result = diary.train(tiny_config(), pictures)
    assert (result.stopped, result.kimg) == (True, 0.024)
    assert [snapshot.kimg for snapshot in diary.snapshots] == [0.024]


def test_a_run_stopped_before_its_first_step_has_nothing_to_keep(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    diary = Diary(stop_after=0)
    assert diary.train(tiny_config(), pictures).stopped
    assert (diary.ticks, diary.snapshots) == ([], [])


def test_the_minutes_of_a_resumed_run_count_on_from_those_before(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    state.minutes = 12.0
    assert 12.0 < Diary(stop_after=1).train(state.config, pictures, state).minutes < 13.0


def test_a_finished_state_is_not_trained_on(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    config = tiny_config()
    first, again = Diary(), Diary(stop_after=0)
    first.train(config, pictures)
    result = again.train(config, pictures, TrainingState.from_bytes(first.states[-1]))
    assert (result.kimg, result.stopped) == (0.096, False)
    assert (again.ticks, again.snapshots) == ([], [])


def test_snapshots_come_while_it_trains_each_after_a_tick(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(first_snapshot_minutes=1e-6, snapshot_growth=1.0, total_kimg=0.024)
    diary = Diary()
    diary.train(config, pictures)
    assert [snapshot.kimg for snapshot in diary.snapshots] == [0.008, 0.016, 0.024]
    assert [tick.kimg for tick in diary.ticks] == [0.008, 0.016, 0.024]


def test_a_snapshot_is_a_servable_checkpoint_that_paints_its_own_sheet(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, tmp_path: Path
) -> None:
    config = tiny_config()
    diary = Diary()
    diary.train(config, pictures)
    (snapshot,) = diary.snapshots
    meta = CheckpointMeta(config=config, kimg=snapshot.kimg, minutes=snapshot.minutes, metrics=snapshot.metrics)
    save_checkpoint(tmp_path / "model.safetensors", snapshot.generator, meta)
    generator, _ = load_generator(tmp_path / "model.safetensors")
    painted = contact_sheet(render(generator, range(16), batch=8), 4)
    np.testing.assert_array_equal(np.asarray(painted), np.asarray(snapshot.sheet))


def test_a_training_that_diverges_stops_with_the_reason_and_without_a_snapshot(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    diary = Diary()
    state = TrainingState.start(tiny_config())
    next(state.discriminator.parameters()).data.fill_(float("inf"))
    with pytest.raises(TrainingDiverged, match="lower learning_rate or raise penalty_gamma"):
        diary.train(state.config, pictures, state)
    assert diary.snapshots == []


def test_a_state_of_other_settings_is_refused(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    with pytest.raises(ConfigInvalid, match="other settings"):
        Diary().train(tiny_config(seed=1), pictures, TrainingState.start(tiny_config(seed=2)))


def test_the_array_may_be_a_memory_mapped_file_and_stays_as_it_is(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", pictures)
    before = (tmp_path / "images.npy").read_bytes()
    Diary().train(tiny_config(), np.load(tmp_path / "images.npy", mmap_mode="r"))
    assert (tmp_path / "images.npy").read_bytes() == before


def test_a_few_hundred_steps_bring_the_pictures_nearer_to_the_real_ones(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(total_kimg=2.0, first_snapshot_minutes=1e-6, snapshot_growth=10.0, learning_rate=2e-3)
    fresh, trained = Diary(), Diary()
    fresh.train(config.model_copy(update={"total_kimg": 0.008}), pictures)
    trained.train(config, pictures)
    assert trained.snapshots[-1].metrics["swd"] < 0.7 * fresh.snapshots[-1].metrics["swd"]


def test_auto_means_the_gpu_where_there_is_one() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_a_prompted_run_interrupted_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    config = tiny_config(shape=told, total_kimg=0.064, batch_size=8, augment_target=0.6, augment_kimg=0.1)
    whole, first, second = Diary(texts=texts), Diary(texts=texts, stop_after=3), Diary(texts=texts)
    whole.train(config, pictures)
    first.train(config, pictures)
    second.train(config, pictures, TrainingState.from_bytes(first.states[-1]))
    ends = [TrainingState.from_bytes(diary.states[-1]) for diary in (whole, second)]
    for end in ends:
        end.minutes = 0.0  # the only thing that may differ
    assert ends[0].to_bytes() == ends[1].to_bytes()


def test_pictures_that_are_held_out_are_never_shown(tiny_config: Callable[..., TrainConfig]) -> None:
    images = np.zeros((80, 32, 32, 3), np.uint8)
    config = tiny_config(shape={"generator_norm": "none"})
    shown, held = shown_rows(config, 80)
    reals = loop.settle(TrainingState.start(config), images, torch.device("cpu"))
    seen = {int(row) for _ in range(16) for row in reals.next().rows}
    assert len(held) == 20
    assert seen == set(shown.tolist())


@pytest.mark.parametrize("batch_size", [2, 50, 64])
def test_a_batch_may_be_larger_than_the_dataset(
    batch_size: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    diary = Diary()
    result = diary.train(tiny_config(batch_size=batch_size, total_kimg=batch_size / 1000), pictures[:7])
    assert (result.kimg, len(diary.snapshots)) == (batch_size / 1000, 1)


def test_a_snapshot_is_broken_off_when_the_training_has_to_stop_and_the_state_is_all_that_is_left(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(total_kimg=1e6, first_snapshot_minutes=1e-6, snapshot_growth=1)
    diary, left = Diary(stop_after=3), list[TrainingState]()

    def leave(state: TrainingState) -> bool:
        left.append(state)
        return True

    stopped = train(
        config,
        pictures,
        on_tick=diary.ticks.append,
        on_snapshot=diary.keep,
        should_stop=diary.asked,
        on_stop=leave,
        device="cpu",
    )
    assert stopped.stopped
    assert diary.snapshots == []  # one question before the step, two while the sheet is painted
    assert [state.kimg for state in left] == [diary.ticks[-1].kimg] == [stopped.kimg]


def test_a_last_snapshot_gives_signs_of_life_and_is_not_broken_off(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    diary = Diary(stop_after=1)
    assert diary.train(tiny_config(total_kimg=1e6), pictures).stopped
    assert len(diary.snapshots) == 1
    assert diary.questions > 2  # one before the step, one that was answered with a stop


def test_numbers_that_broke_on_the_last_steps_before_a_stop_are_not_saved(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", lambda *_: {"generator": torch.tensor(float("nan"))})
    diary = Diary(stop_after=3)
    assert diary.train(tiny_config(total_kimg=1e6), pictures).stopped
    assert (diary.ticks, diary.snapshots) == ([], [])
