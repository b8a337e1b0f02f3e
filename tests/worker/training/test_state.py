import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from models.config import TrainConfig
from models.errors import CheckpointInvalid, ConfigInvalid
from models.text import HashedEncoder
from worker.training.loop import settle
from worker.training.state import TrainingState
from worker.training.steps import train_step
from worker.training.texts import Texts

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


def test_a_state_of_networks_that_know_texts_trains_on_bit_for_bit_in_small_passes_and_adapting(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    config = tiny_config(
        shape=told | {"architecture": "fastgan"}, augment_target=0.6, augment_kimg=0.1, micro_batch=4, batch_size=8
    )
    ends = []
    for interrupted in (False, True):
        state = TrainingState.start(config)
        for _ in range(2):
            reals = settle(state, pictures, CPU, texts)
            for _ in range(3):
                train_step(state, reals, progress=state.steps / 20, texts=texts)
            if interrupted:
                torch.randn(9)
                state = TrainingState.from_bytes(state.to_bytes())
        ends.append(state)
    assert ends[0].to_bytes() == ends[1].to_bytes()
    assert ends[0].augment_probability != config.augment_probability


def test_how_much_features_count_is_worked_out_once_and_then_a_part_of_the_state(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    state = TrainingState.start(tiny_config(shape=told))
    train_step(state, settle(state, pictures, CPU, texts), 0.0, texts)
    other = Texts.of(["another dataset"] * 40, [None] * 40, HashedEncoder(256))
    resumed = TrainingState.from_bytes(state.to_bytes())
    settle(resumed, pictures, CPU, other)
    for generator in (resumed.generator, resumed.generator_ema):
        assert generator.text is not None
        np.testing.assert_array_equal(generator.text.weight.numpy(), texts.weights)


def tensors_of(state: TrainingState) -> dict[str, torch.Tensor]:
    return safetensors.torch.load(state.to_bytes())


def test_a_branch_starts_from_every_tensor_moment_and_random_state_with_its_budget_unspent(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    first = TrainingState.start(tiny_config(augment_probability=0.9))
    advance(first, pictures, 5)
    first.minutes, first.rate_scale, first.micro_batch, first.augment_probability = 3.0, 0.5, 2, 0.1
    config = tiny_config(learning_rate=5e-4, loss="hinge", seed=9, augment_probability=0.4, micro_batch=4)
    branch = first.under(config)
    assert branch.config == config
    before, after = tensors_of(first), tensors_of(branch)
    networks = [branch.generator, branch.discriminator, branch.generator_ema]
    optimized = [*branch.generator_optimizer.state.values(), *branch.discriminator_optimizer.state.values()]
    assert len(after) == sum(len(network.state_dict()) for network in networks) + 3 * len(optimized) + 1
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert (branch.steps, branch.images_seen, branch.images_drawn, branch.minutes) == (0, 0, 0, 0.0)
    assert (branch.rate_scale, branch.micro_batch, branch.augment_probability) == (1.0, 4, 0.4)


def test_a_branch_is_a_state_of_its_own(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    first = TrainingState.start(tiny_config())
    advance(first, pictures, 2)
    before = first.to_bytes()
    branch = first.under(tiny_config(seed=3))
    advance(branch, pictures, 2)
    assert first.to_bytes() == before
    assert branch.images_seen == 16


def test_a_branch_with_the_same_settings_goes_on_as_the_first_would_have_at_its_start(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    first = TrainingState.start(tiny_config(penalty_interval=1))
    advance(first, pictures, 3)
    branch = first.under(first.config)
    first.steps = first.images_seen = first.images_drawn = 0
    advance(first, pictures, 2)
    advance(branch, pictures, 2)
    assert branch.to_bytes() == first.to_bytes()


@pytest.mark.parametrize(("was", "becomes"), [(0, 2), (2, 0), (1, 2)])
def test_a_branch_freezes_the_stages_that_its_own_settings_say(
    was: int, becomes: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    first = TrainingState.start(tiny_config(frozen_discriminator_stages=was))
    advance(first, pictures, 1)
    branch = first.under(tiny_config(frozen_discriminator_stages=becomes))
    expected = TrainingState.start(branch.config).discriminator
    frozen = [parameter.requires_grad for parameter in branch.discriminator.parameters()]
    assert frozen == [parameter.requires_grad for parameter in expected.parameters()]
    advance(branch, pictures, 2)
    assert TrainingState.from_bytes(branch.to_bytes()).to_bytes() == branch.to_bytes()


def test_a_branch_with_other_networks_is_refused_with_what_to_do(tiny_config: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigInvalid, match=r"the same networks; .* start a training with this model as its base"):
        TrainingState.start(tiny_config()).under(tiny_config(shape={"w_dim": 64}))
