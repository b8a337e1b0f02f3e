"""A recording plays what the network would do, with any weights, and keeps none."""

import gc
import weakref

import pytest
import torch
from torch import nn

from app.serving.inference import prepare
from app.serving.recording import Playback, record
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator


def prepared(name: str, seed: int, dtype: torch.dtype = torch.float32) -> Generator:
    torch.manual_seed(seed)
    generator = build_generator(preset(name, 64).network)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
        generator(torch.randn(8, generator.z_dim))
    prepare(generator.eval().requires_grad_(False), dtype)
    return generator


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["tiny", "classic", "few-shot", "quality"])
def test_a_recording_plays_any_weights_of_its_network_and_any_number_of_pictures(name: str, dtype: torch.dtype) -> None:
    first, second = (prepared(name, seed, dtype) for seed in range(2))
    w = torch.randn(5, first.num_ws, first.w_dim)

    with torch.inference_mode():
        expected = first.synthesis(w), second.synthesis(w)
        recording = record(first.synthesis, w[:3])
        for generator, painted in zip((first, second), expected, strict=True):
            played = Playback(generator.synthesis, recording)
            for _ in range(4):  # torch looks at the first passes to make later ones quicker
                assert torch.equal(played(w), painted)
                assert torch.equal(played(w[:1]), generator.synthesis(w[:1]))
                assert torch.equal(generator.synthesis(w), painted)
    assert not torch.equal(*expected)


def test_what_is_none_is_no_input() -> None:
    mapping = prepared("tiny", 0).mapping
    z = torch.randn(8, 128)
    recording = record(mapping, z)

    with torch.inference_mode():
        assert torch.equal(Playback(mapping, recording)(z, None), mapping(z))


def test_a_recording_keeps_no_weights() -> None:
    network = prepared("tiny", 0).synthesis
    recording = record(network, torch.randn(3, 5, 128))
    kept = [weakref.ref(weight) for weight in network.parameters()]
    assert kept
    gc.disable()
    try:
        del network
        assert not any(weight() is not None for weight in kept)
    finally:
        gc.enable()
    assert recording is not None


def test_a_network_that_cannot_be_recorded_keeps_its_weights() -> None:
    class Broken(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            raise ValueError("broken")

    layer = Broken(2, 2)
    weight = layer.weight
    with pytest.raises(ValueError, match="broken"):
        record(layer, torch.ones(1, 2))

    assert layer.weight is weight
