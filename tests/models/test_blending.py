from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import blending
from models.blending import Parent, blend
from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.config import TextConfig, TrainConfig
from models.errors import ModelsError
from models.latents.samples import sample_w
from models.latents.truncation import estimate_w_avg
from models.networks.generator import Generator
from models.registry import build_generator

FIRST, SECOND = "a" * 64, "b" * 64


def _pictures(generator: Generator, count: int = 8) -> Tensor:
    with torch.no_grad():
        pictures: Tensor = generator.synthesis(sample_w(generator, count)[:, None].expand(-1, generator.num_ws, -1))
    return pictures


def _parent(config: TrainConfig, sha256: str, **said: object) -> Parent:
    """An untrained generator whose batch norms have seen a batch, and what its checkpoint says."""
    generator = build_generator(config.network)
    with torch.no_grad():
        c = None if generator.text is None else generator.text(torch.rand(16, len(generator.text.weight)))
        generator(torch.randn(16, generator.z_dim), c)
        generator.synthesis.get_parameter("paint.weight").mul_(50)
        generator.w_avg.normal_()
    meta = CheckpointMeta.model_validate({"config": config, "kimg": 3.0, "minutes": 1.0, **said})
    generator.captions = meta.captions
    return Parent(generator.eval(), meta, sha256)


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms are measured over few pictures: enough for tiny networks."""
    monkeypatch.setattr(blending, "NORM_BATCHES", 2)


@pytest.fixture
def parents(small_config: Callable[..., TrainConfig]) -> tuple[Parent, Parent]:
    """Two generators of one shape."""
    config = small_config()
    first = _parent(config, FIRST, dataset="leaves", license="CC0", metrics={"swd": 3.0})
    return first, _parent(config, SECOND, dataset="bark", license="CC0", kimg=5.0, minutes=0.5)


@pytest.mark.parametrize("amount", [0, 1])
def test_all_of_one_parent_is_that_parent_exactly(parents: tuple[Parent, Parent], amount: int) -> None:
    child, _ = blend(*parents, [amount] * 4, amount)
    expected = parents[amount].generator
    assert torch.equal(_pictures(child), _pictures(expected))
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in child.state_dict().items())


def test_weights_are_interpolated_by_the_amount_of_their_stage(parents: tuple[Parent, Parent]) -> None:
    amounts, mapping = (0.0, 0.25, 1.0, 0.5), 0.75
    first, second = (parent.generator.state_dict() for parent in parents)
    child, _ = blend(*parents, amounts, mapping)
    stages = {"start.weight": 0, "norms.0.affine.weight": 0, "upsamples.0.weight": 1, "norms.1.affine.bias": 1}
    stages |= {"upsamples.1.weight": 2, "norms.2.affine.weight": 2, "upsamples.2.weight": 3, "paint.weight": 3}
    for place, stage in stages.items():
        name = f"synthesis.{place}"
        expected = (1 - amounts[stage]) * first[name] + amounts[stage] * second[name]
        torch.testing.assert_close(child.state_dict()[name], expected)
    expected = 0.25 * first["mapping.layers.0.weight"] + 0.75 * second["mapping.layers.0.weight"]
    torch.testing.assert_close(child.mapping.layers[0].weight, expected)


def test_the_parents_are_left_as_they_are(parents: tuple[Parent, Parent]) -> None:
    before = [_pictures(parent.generator) for parent in parents]
    child, _ = blend(*parents, [0.5] * 4, 0.5)
    assert all(torch.equal(_pictures(parent.generator), x) for parent, x in zip(parents, before, strict=True))
    assert not torch.equal(_pictures(child), before[0])


def test_swapped_layers_measure_their_norms_anew(
    parents: tuple[Parent, Parent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blending, "NORM_BATCHES", 16)
    child, _ = blend(*parents, [0, 0, 1, 1], 0)
    seen: list[Tensor] = []
    norm = child.synthesis.get_submodule("norms.2.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    assert not norm.training
    assert norm.momentum == parents[0].generator.synthesis.get_submodule("norms.2.norm").momentum
    hook = norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    _pictures(child, 1000)
    hook.remove()
    deviation, variance = seen[0].std(dim=(0, 2, 3)), seen[0].var(dim=(0, 2, 3))
    assert float(((seen[0].mean(dim=(0, 2, 3)) - norm.running_mean) / deviation).abs().max()) < 0.1
    torch.testing.assert_close(norm.running_var, variance, rtol=0.2, atol=0)


def test_the_mean_of_w_is_that_of_the_new_mapping(parents: tuple[Parent, Parent]) -> None:
    child, _ = blend(*parents, [0] * 4, 0.5)
    assert torch.equal(child.w_avg, estimate_w_avg(child))
    swapped, _ = blend(*parents, [0] * 4, 1)
    assert torch.equal(swapped.w_avg, parents[1].generator.w_avg)


def test_a_child_says_whose_it_is_and_no_more_of_how_good_it_is(parents: tuple[Parent, Parent], tmp_path: Path) -> None:
    child, meta = blend(*parents, [0, 0.5, 1, 1], 0.5)
    assert meta.parents == (FIRST, SECOND)
    assert (meta.kimg, meta.minutes, meta.metrics) == (5.0, 1.0, {})
    assert (meta.dataset, meta.license) == ("leaves and bark", "CC0")
    path = tmp_path / "child.safetensors"
    save_checkpoint(path, child, meta)
    read, said = load_generator(path)
    assert said == meta
    assert torch.equal(_pictures(read), _pictures(child))


def test_texts_are_those_of_the_parent_that_more_of_the_mapping_is_from(
    small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    config = small_config()
    config = config.model_copy(update={"network": config.network.model_copy(update={"text": text_config})})
    first = _parent(config, FIRST, captions=("red leaf",), labels=("leaf",), captioned=True)
    second = _parent(config, SECOND, captions=("dark bark",), labels=("bark",), captioned=True)
    for amount, heir in ((0.4, first), (0.6, second)):
        child, meta = blend(first, second, [0] * 4, amount)
        assert child.captions == meta.captions == heir.meta.captions
        assert meta.labels == heir.meta.labels
        assert child.text is not None
        weights = [parent.generator.state_dict()["text.embed.weight"] for parent in (first, second)]
        torch.testing.assert_close(child.text.embed.weight, (1 - amount) * weights[0] + amount * weights[1])


def test_networks_of_other_shapes_are_refused_with_what_differs(
    parents: tuple[Parent, Parent], small_config: Callable[..., TrainConfig], text_config: TextConfig
) -> None:
    config = small_config()
    told = config.model_copy(update={"network": config.network.model_copy(update={"text": text_config})})
    with pytest.raises(ModelsError, match=r"differ in text: None and .*hashed-256"):
        blend(parents[0], _parent(told, SECOND), [0] * 4, 0)
    with pytest.raises(ModelsError, match="differ in mapping_layers: 2 and 0"):
        blend(parents[0], _parent(small_config("classic"), SECOND), [0] * 4, 0)


@pytest.mark.parametrize(
    ("amounts", "mapping"), [([0] * 3, 0), ([0, 0, 0, 1.1], 0), ([0] * 4, -0.1), ([0, 0, 0, float("nan")], 0)]
)
def test_amounts_that_do_not_fit_are_refused(
    parents: tuple[Parent, Parent], amounts: list[float], mapping: float
) -> None:
    with pytest.raises(ModelsError, match="from 0 to 1 for each of 4 layers, and one for the mapping"):
        blend(*parents, amounts, mapping)


@pytest.mark.parametrize("architecture", ["fastgan", "r3gan"])
@pytest.mark.parametrize("mapping_layers", [0, 1])
def test_every_kind_of_network_is_blended(
    small_config: Callable[..., TrainConfig], architecture: str, mapping_layers: int
) -> None:
    config = small_config()
    widths = (8, 8, 4, 4) if architecture == "r3gan" else (8, 8, 4)
    shape = {"architecture": architecture, "mapping_layers": mapping_layers, "discriminator_widths": widths}
    shape |= {"group_size": 8}
    config = config.model_copy(update={"network": config.network.model_copy(update=shape)})
    first, second = _parent(config, FIRST), _parent(config, SECOND)
    child, _ = blend(first, second, [1, 0, 0.5, 0.5], 0)
    assert torch.isfinite(_pictures(child)).all()
    assert torch.equal(_pictures(blend(first, second, [1] * 4, 1)[0]), _pictures(second.generator))
