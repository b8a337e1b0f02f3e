import json
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch

from models.config import TrainConfig
from models.errors import CheckpointInvalid
from worker.training.loop import settle
from worker.training.state import TrainingState
from worker.training.steps import train_step

CPU = torch.device("cpu")


def advance(state: TrainingState, pictures: np.ndarray, steps: int) -> None:
    reals = settle(state, pictures, CPU)
    for _ in range(steps):
        train_step(state, reals, progress=state.steps / 20)


@pytest.mark.parametrize("name", ["tiny", "classic"])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_a_state_read_back_trains_on_bit_for_bit_as_the_one_that_was_never_saved(
    name: str, steps: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    whole = TrainingState.start(tiny_config(name))
    advance(whole, pictures, steps)
    resumed = TrainingState.from_bytes(whole.to_bytes())
    assert resumed.to_bytes() == whole.to_bytes()
    advance(whole, pictures, 6)
    torch.randn(100)  # what others draw meanwhile does not matter
    advance(resumed, pictures, 6)
    assert resumed.to_bytes() == whole.to_bytes()


def test_two_starts_from_one_seed_are_equal_and_from_two_seeds_are_not(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    first = TrainingState.start(tiny_config(seed=1)).to_bytes()
    torch.randn(100)
    assert TrainingState.start(tiny_config(seed=1)).to_bytes() == first
    others = TrainingState.start(tiny_config(seed=2)).generator.state_dict()
    name = "synthesis.start.weight"
    assert not torch.equal(others[name], safetensors.torch.load(first)[f"generator.{name}"])


def test_training_leaves_the_global_random_state_as_it_was(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    before = torch.get_rng_state()
    advance(TrainingState.start(tiny_config()), pictures, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_bytes_hold_the_configuration_as_json_and_every_moment_of_adam(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    advance(state, pictures, 3)
    data = state.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    saved = json.loads(header["__metadata__"]["ganvas_training"])
    assert TrainConfig.model_validate(saved["config"]) == state.config
    assert (saved["steps"], saved["images_seen"], saved["images_drawn"]) == (3, 24, 48)
    moments = [name for name in header if name.startswith("generator_optimizer.") and name.endswith(".exp_avg_sq")]
    assert len(moments) == len(list(state.generator.parameters()))


def without(data: bytes, name: str) -> bytes:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    tensors = safetensors.torch.load(data)
    del tensors[name]
    return safetensors.torch.save(tensors, metadata=header["__metadata__"])


def test_a_damaged_or_foreign_state_is_refused(tiny_config: Callable[..., TrainConfig]) -> None:
    data = TrainingState.start(tiny_config()).to_bytes()
    foreign = safetensors.torch.save({"weight": torch.zeros(2)})
    for damaged in (b"", b"PK\x03\x04 a zip", data[:-1], data[:100], foreign):
        with pytest.raises(CheckpointInvalid, match="not the state of a training"):
            TrainingState.from_bytes(damaged)


@pytest.mark.parametrize(
    "name", ["generator.synthesis.paint.weight", "random.cpu", "discriminator_optimizer.0.exp_avg"]
)
def test_a_state_with_a_tensor_missing_is_refused_by_its_name(
    name: str, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    advance(state, pictures, 1)
    with pytest.raises(CheckpointInvalid, match=name.split(".", 1)[1]):
        TrainingState.from_bytes(without(state.to_bytes(), name))
