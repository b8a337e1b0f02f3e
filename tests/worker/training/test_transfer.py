from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import TextConfig, TrainConfig
from models.errors import CheckpointInvalid, ConfigInvalid
from models.registry import build_discriminator, build_generator
from models.sampling import render
from worker.training.loop import settle
from worker.training.state import TrainingState
from worker.training.steps import train_step
from worker.training.texts import Texts
from worker.training.transfer import start_from

CPU = torch.device("cpu")


def base(folder: Path, config: TrainConfig, *, with_discriminator: bool = True) -> tuple[Path, nn.Module, nn.Module]:
    """A checkpoint of networks in which no two tensors of a shape are equal and none is as at the start."""
    torch.manual_seed(5)
    generator, discriminator = build_generator(config.network), build_discriminator(config.network)
    for network in (generator, discriminator):
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    path = folder / "base.safetensors"
    meta = CheckpointMeta(config=config, kimg=1, minutes=1)
    save_checkpoint(path, generator, meta, discriminator=discriminator if with_discriminator else None)
    return path, generator, discriminator


def floats(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


@pytest.mark.parametrize("architecture", ["dcgan", "fastgan", "r3gan"])
def test_a_base_with_the_same_networks_hands_on_every_tensor(
    architecture: str, tiny_config: Callable[..., TrainConfig], told: dict[str, Any], tmp_path: Path
) -> None:
    shape = told | {"architecture": architecture, "discriminator_norm": "batch"}
    if architecture == "r3gan":
        shape |= {"discriminator_widths": (16, 8, 8, 8), "group_size": 4}
    config = tiny_config(shape=shape)
    path, generator, discriminator = base(tmp_path, config)
    state = TrainingState.start(config)
    transfer = start_from(state, path)
    assert transfer.left == ()
    for theirs, ours in (
        (generator, state.generator),
        (generator, state.generator_ema),
        (discriminator, state.discriminator),
    ):
        expected = floats(theirs)
        assert expected.keys() == floats(ours).keys()
        for name, tensor in floats(ours).items():
            assert torch.equal(tensor, expected[name]), name
    names = [f"generator.{name}" for name in generator.state_dict()]
    assert sorted(transfer.taken) == sorted(names + [f"discriminator.{name}" for name in discriminator.state_dict()])
    assert transfer.message == f"Started from the base: all of its {len(transfer.taken)} tensors fit."
    assert state.generator_optimizer.state_dict()["state"] == {}


def test_a_base_gives_way_tensor_by_tensor_where_widths_differ_and_says_so_with_both_shapes(
    tiny_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    path, generator, discriminator = base(tmp_path, tiny_config())
    config = tiny_config(shape={"generator_widths": (16, 8, 8, 12), "discriminator_widths": (16, 12, 8)})
    state, untouched = TrainingState.start(config), TrainingState.start(config)
    transfer = start_from(state, path)
    for called, theirs, ours, first in (
        ("generator", generator, state.generator, untouched.generator),
        ("discriminator", discriminator, state.discriminator, untouched.discriminator),
    ):
        expected, own = floats(theirs), floats(first)
        misfits = {name for name in own if own[name].shape != expected[name].shape}
        assert misfits
        for name, tensor in floats(ours).items():
            source = own if name in misfits else expected
            assert torch.equal(tensor, source[name]), name
        for name in misfits:
            (sentence,) = (line for line in transfer.left if line.startswith(f"{called}.{name}: "))
            shapes = ["x".join(map(str, tensor.shape)) for tensor in (expected[name], own[name])]
            assert sentence == f"{called}.{name}: the base's is {shapes[0]}, this one's {shapes[1]}."
    assert f"left {len(transfer.left)}" in transfer.message
    assert all(line in transfer.message for line in transfer.left)


def test_a_base_of_half_the_resolution_hands_on_what_the_stages_have_in_common(
    tiny_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = tiny_config()
    path, generator, _ = base(tmp_path, config)
    shape = {"resolution": 64, "generator_widths": (16, 8, 8, 4, 4), "discriminator_widths": (16, 8, 8, 4)}
    state = TrainingState.start(tiny_config(shape=shape))
    transfer = start_from(state, path)
    assert torch.equal(
        state.generator.get_parameter("synthesis.start.weight"), floats(generator)["synthesis.start.weight"]
    )
    assert "generator.synthesis.norms.4.affine.weight: the base has none." in transfer.left
    train_step(state, settle(state, np.zeros((8, 64, 64, 3), np.uint8), CPU), 0.0)


def test_a_base_without_a_discriminator_leaves_d_as_it_is_and_says_so(
    tiny_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = tiny_config()
    path, _, _ = base(tmp_path, config, with_discriminator=False)
    state = TrainingState.start(config)
    transfer = start_from(state, path)
    assert transfer.left == ("The base has no discriminator; D starts from its first weights.",)
    expected = floats(TrainingState.start(config).discriminator)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in floats(state.discriminator).items())


def test_a_base_that_knows_no_texts_learns_them_and_draws_at_first_as_it_did(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts, tmp_path: Path
) -> None:
    plain = tiny_config()
    first = TrainingState.start(plain)
    reals = settle(first, pictures, CPU)
    for _ in range(5):
        train_step(first, reals, 0.0)
    path = tmp_path / "base.safetensors"
    meta = CheckpointMeta(config=plain, kimg=1, minutes=1)
    save_checkpoint(path, first.generator_ema, meta, discriminator=first.discriminator)
    state = TrainingState.start(tiny_config(shape=told))
    transfer = start_from(state, path)
    for generator in (state.generator, state.generator_ema):
        weight = generator.get_parameter("mapping.layers.0.weight")
        assert torch.equal(
            weight[:, : plain.network.z_dim], first.generator_ema.get_parameter("mapping.layers.0.weight")
        )
        assert not weight[:, plain.network.z_dim :].any()
    for name in (
        "generator.text.embed.weight",
        "generator.mapping.caption.mean.weight",
        "discriminator.compare.weight",
    ):
        assert f"{name}: the base has none." in transfer.left
    reals = settle(state, pictures, CPU, texts)
    expected = render(first.generator_ema, range(4)).astype(int)
    assert np.abs(render(state.generator_ema, range(4), prompts=["a red disc"] * 4) - expected).max() <= 1
    train_step(state, reals, 0.0, texts)
    assert state.generator.get_parameter("mapping.layers.0.weight")[:, plain.network.z_dim :].any()


def test_texts_read_by_another_encoder_are_learnt_anew(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], tmp_path: Path
) -> None:
    path, generator, _ = base(tmp_path, tiny_config(shape=told))
    text = TextConfig(encoder="sentence:other", features=256, dim=8)
    config = tiny_config(shape={"text": text})
    state = TrainingState.start(config)
    transfer = start_from(state, path)
    own = floats(TrainingState.start(config).generator)
    for name, tensor in floats(state.generator).items():
        source = own if name.startswith("text.") else floats(generator)
        assert torch.equal(tensor, source[name]), name
    assert "generator.text.embed.weight: the base's texts were read by another encoder." in transfer.left


def test_a_base_with_a_mapping_gives_what_it_can_to_networks_without(
    tiny_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    path, _, _ = base(tmp_path, tiny_config())
    state = TrainingState.start(tiny_config(shape={"mapping_layers": 0}))
    assert "generator.mapping.layers.0.weight: only the base has it." in start_from(state, path).left


def test_a_stranger_is_refused_with_what_does_not_fit(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], tmp_path: Path
) -> None:
    path, _, _ = base(tmp_path, tiny_config(shape=told))
    shape = told | {"architecture": "r3gan", "discriminator_widths": (16, 8, 8, 8), "group_size": 4, "w_dim": 32}
    with pytest.raises(ConfigInvalid, match=r"Nothing much of the base fits this configuration\. generator\..*: "):
        start_from(TrainingState.start(tiny_config(shape=shape)), path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointInvalid):
        start_from(TrainingState.start(tiny_config()), path)
