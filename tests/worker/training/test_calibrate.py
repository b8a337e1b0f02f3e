"""A calibration runs the real steps, in a process of its own, and says why when it cannot."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from models.config import TextConfig, TrainConfig
from models.presets import preset
from worker.training import calibrate
from worker.training.calibrate import CalibrationFailed, measure, measure_apart, this_machine

CPU = torch.device("cpu")


def tiny(**overrides: object) -> TrainConfig:
    """A training of a few milliseconds a step."""
    network = preset("tiny", 32).network
    shape = {"generator_widths": (8, 8, 8, 8), "discriminator_widths": (8, 8, 8), "z_dim": 8, "w_dim": 8}
    chosen = network.model_copy(update=shape)
    return preset("tiny", 32, network=chosen, batch_size=8, **overrides)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MEASURING_SECONDS", 0.2)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Steps that do nothing but take 10 ms an image, with the penalty 40: batch and penalty of each."""
    taken: list[tuple[int, bool]] = []
    now = [0.0]

    def step(state: object, *_: object) -> None:
        with_penalty = state.steps % state.config.penalty_interval == 0  # type: ignore[attr-defined]
        taken.append((state.config.batch_size, with_penalty))  # type: ignore[attr-defined]
        now[0] += state.config.batch_size * (0.04 if with_penalty else 0.01)  # type: ignore[attr-defined]
        state.steps += 1  # type: ignore[attr-defined]

    monkeypatch.setattr(calibrate, "train_step", step)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return taken


def test_a_speed_is_that_of_whole_penalty_cycles(paced: list[tuple[int, bool]]) -> None:
    speed = measure(tiny(penalty_interval=4), CPU)
    assert speed.seconds_per_kimg == pytest.approx(1000 * (0.04 + 3 * 0.01) / 4)
    assert {batch for batch, _ in paced} == {4, 8}
    assert len(paced) > 10


def test_where_every_step_has_the_penalty_each_is_one_of_those(paced: list[tuple[int, bool]]) -> None:
    assert measure(tiny(penalty_interval=1), CPU).seconds_per_kimg == pytest.approx(40.0)
    assert all(with_penalty for _, with_penalty in paced)


def test_slow_networks_are_measured_in_smaller_batches(
    paced: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_told = iter([1_000, 1_800])  # the most in use after batches of 4, and of 8
    monkeypatch.setattr(calibrate, "memory_bytes", lambda _device: next(bytes_told))
    monkeypatch.setattr(calibrate, "LONGEST_PAIR_SECONDS", 0.5)
    speed = measure(tiny().model_copy(update={"batch_size": 64, "penalty_interval": 2}), CPU)
    assert {batch for batch, _ in paced} == {4, 8}
    assert speed.seconds_per_kimg == pytest.approx(25.0)
    assert speed.memory_bytes == 1_800 + 200 * (64 - 8)


@pytest.mark.usefixtures("quick")
def test_networks_that_know_texts_are_measured_with_texts() -> None:
    config = tiny(text=TextConfig(encoder="hashed-64", features=64, dim=8))
    assert config.network.text is not None
    speed = measure(config, CPU)
    assert speed.seconds_per_kimg > 0
    assert speed.memory_bytes > 50_000_000


def test_a_measurement_apart_comes_back_whole() -> None:
    speed = measure_apart(tiny().model_dump_json(), "cpu", 1)
    assert speed is not None
    assert speed.seconds_per_kimg > 0
    assert speed.memory_bytes > 50_000_000


def test_a_configuration_that_cannot_be_read_fails_with_a_reason() -> None:
    with pytest.raises(CalibrationFailed, match="The steps failed: "):
        measure_apart('{"preset": "tiny"}', "cpu", 1)


def test_a_measurement_is_stopped_when_its_worker_is(wait_long: Callable[[], str]) -> None:
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    assert measure_apart(wait_long(), "cpu", 1, stopping.is_set) is None


def test_a_measurement_that_takes_too_long_is_given_up(
    wait_long: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "TIMEOUT_SECONDS", 0.3)
    with pytest.raises(CalibrationFailed, match="took more than"):
        measure_apart(wait_long(), "cpu", 1)


@pytest.fixture
def wait_long() -> Callable[[], str]:
    """Settings that take a while to measure: as long as torch takes to load, at least."""
    return lambda: preset("quality", 64).model_dump_json()


def test_the_machine_is_told_with_its_processor_memory_threads_and_torch() -> None:
    machine = this_machine("cpu", 3)
    assert machine.device
    assert machine.device_bytes > 2**28
    assert (machine.threads, machine.torch) == (3, torch.__version__)


def test_of_a_gpu_only_the_share_that_training_may_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="A GPU", total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    machine = this_machine("cuda:0", 3, gpu_share=0.75)
    assert (machine.device, machine.device_bytes) == ("A GPU", 6 * 2**30)
