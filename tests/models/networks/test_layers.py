import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.config import NetworkConfig
from models.networks.generator import Generator
from models.networks.layers import ModulatedNorm, ResizeConv, SkipExcitation, double, halve
from models.registry import ARCHITECTURES, build_generator

STAGES = {"dcgan": (3, 4), "fastgan": (4,), "r3gan": (4,)}  # that a generator of 32 px may have
SHAPES = [(kind, stages, mapping) for kind in ARCHITECTURES for stages in STAGES[kind] for mapping in (0, 2)]


def test_a_resize_convolution_is_nearest_resizing_and_then_a_3x3_convolution() -> None:
    layer = ResizeConv(3, 5)
    x = torch.randn(2, 3, 6, 7)
    resized = functional.interpolate(x, scale_factor=2, mode="nearest")
    torch.testing.assert_close(layer(x), functional.conv2d(resized, layer.weight, padding=1))


def test_a_modulated_norm_scales_and_shifts_what_it_normalised_by_w() -> None:
    layer = ModulatedNorm(3, 4, nn.BatchNorm2d(3, affine=False))
    x, w = torch.randn(8, 3, 5, 5) * 7 + 3, torch.randn(8, 4)
    y = layer(x, w)
    flat = x.transpose(0, 1).reshape(3, -1)
    mean, variance = flat.mean(dim=1), flat.var(dim=1, correction=0)
    for picture in range(8):
        for channel in range(3):
            scale = layer.affine.weight[channel] @ w[picture] + layer.affine.bias[channel]
            shift = layer.affine.weight[3 + channel] @ w[picture] + layer.affine.bias[3 + channel]
            normalised = (x[picture, channel] - mean[channel]) / (variance[channel] + 1e-5).sqrt()
            torch.testing.assert_close(y[picture, channel], normalised * (1 + scale) + shift, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_skip_excitation_is_the_papers_gate_computed_pixel_by_pixel(side: int) -> None:
    layer = SkipExcitation(3, 5)
    x, source = torch.randn(2, 5, 6, 6), torch.randn(2, 3, side, side)
    # The paper's 4x4 convolution and 1x1 convolution have these weights.
    kernel = layer.squeeze.weight.detach().numpy().reshape(5, 3, 4, 4)
    pointwise = layer.excite.weight.detach().numpy()
    expected = np.zeros((2, 5, 6, 6))
    cell = side // 4
    for picture in range(2):
        hidden = layer.squeeze.bias.detach().numpy().copy()
        for row in range(4):
            for column in range(4):
                block = source[picture, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].numpy()
                hidden += kernel[:, :, row, column] @ block.mean(axis=(1, 2))
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        gate = 1 / (1 + np.exp(-(pointwise @ hidden + layer.excite.bias.detach().numpy())))
        expected[picture] = x[picture].numpy() * gate[:, None, None]
    np.testing.assert_allclose(layer(x, source).detach().numpy(), expected, atol=1e-5)


def upfirdn(image: NDArray[np.float64], up: int, down: int, taps: list[float]) -> NDArray[np.float64]:
    """Zeros between the pixels, zeros around, the filter along both axes by the definition, every `down`-th pixel."""
    side = image.shape[0]
    spaced = np.zeros((side * up, side * up))
    spaced[::up, ::up] = image
    padding = (2, 1) if up == 2 else (1, 1)  # as many outputs as pixels, and the filter in the middle
    padded = np.pad(spaced, (padding, padding))
    kernel = np.outer(taps, taps)
    sides = padded.shape[0] - len(taps) + 1
    filtered = np.array([[(padded[i : i + 4, j : j + 4] * kernel).sum() for j in range(sides)] for i in range(sides)])
    return filtered[::down, ::down]


def test_doubling_and_halving_filter_as_upfirdn_does() -> None:
    x = torch.randn(2, 3, 6, 6)
    for picture in range(2):
        for channel in range(3):
            image = x[picture, channel].double().numpy()
            larger = upfirdn(image, up=2, down=1, taps=[0.25, 0.75, 0.75, 0.25])
            smaller = upfirdn(image, up=1, down=2, taps=[0.125, 0.375, 0.375, 0.125])
            np.testing.assert_allclose(double(x)[picture, channel].numpy(), larger, atol=1e-6)
            np.testing.assert_allclose(halve(x)[picture, channel].numpy(), smaller, atol=1e-6)


def test_doubling_and_halving_leave_an_even_area_as_it_is() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    assert torch.equal(double(x)[:, :, 1:-1, 1:-1], torch.full((1, 2, 14, 14), 3.0))
    assert torch.equal(halve(x)[:, :, 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


def test_doubling_and_halving_keep_the_precision_they_are_given() -> None:
    for precision in (torch.bfloat16, torch.float32, torch.float64):
        x = torch.randn(1, 2, 8, 8, dtype=precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert double(x).dtype == halve(x).dtype == precision


def narrow(architecture: str, stages: int, mapping_layers: int) -> Generator:
    """A generator of 32 px, in float64, whose w is longer than what any layer of it is turned into."""
    network = NetworkConfig.model_validate(
        {
            "architecture": architecture,
            "resolution": 32,
            "z_dim": 160,
            "w_dim": 160,
            "mapping_layers": mapping_layers,
            "generator_widths": (4,) * stages,
            "discriminator_widths": (4,) * (4 if architecture == "r3gan" else 3),
            "group_size": 4,
        }
    )
    return build_generator(network).double().eval()


@pytest.mark.parametrize(("architecture", "stages", "mapping_layers"), SHAPES)
def test_the_style_weights_of_a_layer_are_all_that_its_w_is_seen_through(
    architecture: str, stages: int, mapping_layers: int
) -> None:
    generator = narrow(architecture, stages, mapping_layers)
    weights = generator.synthesis.style_weights()
    assert len(weights) == generator.num_ws
    with torch.no_grad():
        w = generator.mapping(torch.randn(2, 160).double())
        x = generator.synthesis(w)
        for layer, weight in enumerate(weights):
            unseen = torch.linalg.svd(weight).Vh[-1]
            seen = torch.linalg.svd(weight).Vh[0]
            moved = [w.clone(), w.clone()]
            moved[0][:, layer] += 10 * unseen
            moved[1][:, layer] += 10 * seen
            unchanged, changed = ((generator.synthesis(other) - x).abs().max() for other in moved)
            assert float(unchanged) < 1e-6 * float(changed)


@pytest.mark.parametrize(("architecture", "stages", "mapping_layers"), SHAPES)
def test_every_tensor_of_a_synthesis_belongs_to_one_of_its_stages(
    architecture: str, stages: int, mapping_layers: int
) -> None:
    synthesis = narrow(architecture, stages, mapping_layers).synthesis
    found = {name: synthesis.stage_of(name) for name in synthesis.state_dict()}
    assert set(found.values()) == set(range(stages))
    assert found["paint.weight"] == stages - 1
    assert found.get("start.weight", found.get("weigh.weight", found.get("start.convolution.weight"))) == 0


@pytest.mark.parametrize(("architecture", "stages"), [(kind, stages) for kind, stages, mapping in SHAPES if mapping])
def test_a_layer_of_w_is_heard_through_the_tensors_of_its_own_stage_alone(architecture: str, stages: int) -> None:
    generator = narrow(architecture, stages, 2)
    w = torch.randn(2, generator.num_ws, 160).double()
    for layer in range(1, stages):
        deaf = narrow(architecture, stages, 2)
        deaf.load_state_dict(generator.state_dict())
        other = w.clone()
        other[:, layer] += 10
        with torch.no_grad():
            for name, tensor in deaf.synthesis.named_parameters():
                if name.endswith("affine.weight") and deaf.synthesis.stage_of(name) == layer:
                    tensor.zero_()
            assert torch.equal(deaf.synthesis(w), deaf.synthesis(other))
            assert not torch.equal(generator.synthesis(w), generator.synthesis(other))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_lies_before_a_stage_does_not_depend_on_its_tensors(architecture: str) -> None:
    generator = narrow(architecture, 4, 2)
    changed = narrow(architecture, 4, 2)
    stage = 2
    with torch.no_grad():
        for name, tensor in changed.synthesis.state_dict().items():
            same = generator.synthesis.state_dict()[name]
            tensor.copy_(same if changed.synthesis.stage_of(name) < stage else 2 * same + 1)
        before = {"dcgan": "norms.1", "fastgan": "stages.0.1", "r3gan": "stages.1"}[architecture]  # 8 pixels
        after = {"dcgan": "upsamples.1", "fastgan": "stages.1.0", "r3gan": "stages.2"}[architecture]  # 16 pixels
        seen: dict[str, list[torch.Tensor]] = {before: [], after: []}
        w = torch.randn(2, 4, 160).double()
        for network in (generator, changed):
            for name, outputs in seen.items():
                hook = network.synthesis.get_submodule(name).register_forward_hook(
                    lambda _module, _inputs, output, kept=outputs: kept.append(output)
                )
                network.synthesis(w)
                hook.remove()
    assert torch.equal(*seen[before])
    assert not torch.equal(*seen[after])
