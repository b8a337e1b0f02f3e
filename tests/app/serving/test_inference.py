import copy

import pytest
import torch
from torch import Tensor, nn

from app.serving.inference import prepare
from models.config import NetworkConfig
from models.networks.generator import Generator
from models.networks.layers import ModulatedNorm, ResizeConv, SkipExcitation
from models.presets import preset
from models.registry import build_generator


@pytest.mark.parametrize(("inputs", "outputs"), [(128, 128), (100, 64), (37, 53)])
def test_a_dense_layer_gives_a_row_the_same_bits_among_any_number_of_rows(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    network = nn.Sequential(copy.deepcopy(layer))
    x = torch.randn(40, inputs)
    prepare(network)

    with torch.inference_mode():
        alone = torch.cat([network(row) for row in x.split(1)])
        for rows in range(2, 41):
            assert torch.equal(torch.cat([network(batch) for batch in x.split(rows)]), alone)
        torch.testing.assert_close(alone, layer(x))


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (8, 3), (5, 16)])
def test_resizing_and_convolving_become_one_transposed_convolution(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    resizing = ResizeConv(inputs, outputs)
    network = nn.Sequential(resizing)
    x = torch.randn(3, inputs, 6, 6)
    prepare(network)

    enlarged = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = nn.functional.conv2d(enlarged, resizing.weight, padding=1)
    assert isinstance(network[0], nn.ConvTranspose2d)
    torch.testing.assert_close(network(x), expected)


def lively(network: NetworkConfig) -> Generator:
    """A generator of large random weights whose norms have seen pictures."""
    torch.manual_seed(0)
    generator = build_generator(network)
    with torch.no_grad():
        for weight in generator.parameters():
            weight.mul_(4)
        generator(torch.randn(32, generator.z_dim))
    return generator.eval()


def networks() -> list[NetworkConfig]:
    tiny, classic = preset("tiny", 32).network, preset("classic", 32).network
    return [tiny, tiny.model_copy(update={"upsampling": "transposed", "generator_norm": "none"}), classic]


@pytest.mark.parametrize("network", networks(), ids=["tiny", "unnormalised", "classic"])
def test_a_prepared_generator_paints_the_same_pictures(network: NetworkConfig) -> None:
    generator = lively(network)
    ready = copy.deepcopy(generator)
    prepare(ready)
    z = torch.randn(8, generator.z_dim)

    with torch.inference_mode():
        expected: Tensor = generator(z)
        painted: Tensor = ready(z)
    assert expected.std() > 0.1
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-3)
    assert [type(layer) for layer in ready.modules()] != [type(layer) for layer in generator.modules()] or (
        network.mapping_layers == 0
    )


@pytest.mark.parametrize("mapping_layers", [0, 1])
@pytest.mark.parametrize("architecture", ["fastgan", "r3gan"])
def test_a_prepared_generator_of_the_other_families_paints_the_same_pictures(
    architecture: str, mapping_layers: int
) -> None:
    torch.manual_seed(0)
    widths = {"generator_widths": (32, 16, 16, 16, 8), "discriminator_widths": (8,) * (5 - (architecture == "fastgan"))}
    shape = {"architecture": architecture, "resolution": 64, "upsampling": "resize", "z_dim": 16, "w_dim": 16}
    generator = build_generator(NetworkConfig.model_validate({**shape, **widths, "mapping_layers": mapping_layers}))
    with torch.no_grad():
        for name, weight in generator.synthesis.named_parameters():
            if "narrow" in name:
                weight.normal_(0, 0.1)  # blocks of a new r3gan do nothing
            elif "paint" in name:
                weight.mul_(5)  # first weights of fastgan paint all but grey
        for norm in (layer for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)):
            norm.momentum = None  # all they have seen counts, and what they began with does not
        generator(torch.randn(32, 16))
    ready = copy.deepcopy(generator.eval())
    prepare(ready)
    z = torch.randn(8, 16)

    with torch.inference_mode():
        expected: Tensor = generator(z)
        painted: Tensor = ready(z)
        alone = torch.cat([ready(one) for one in z.split(1)])
    assert expected.std() > 0.1
    torch.testing.assert_close(painted, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, painted, rtol=0, atol=1e-4)
    assert not any(type(layer) in (nn.Linear, ModulatedNorm, ResizeConv) for layer in ready.modules())


@pytest.mark.parametrize("maps", [4, 16, 24])
def test_gates_have_the_same_bits_among_any_number_of_pictures(maps: int) -> None:
    torch.manual_seed(0)
    network = nn.ModuleList([SkipExcitation(8, maps)])
    network.eval().requires_grad_(False)
    x, source = torch.randn(9, maps, 16, 16), torch.randn(9, 8, 8, 8)
    expected = network[0](x, source)
    prepare(network)

    with torch.inference_mode():
        alone = torch.cat([network[0](one, from_) for one, from_ in zip(x.split(1), source.split(1), strict=True)])
        for count in range(2, 10):
            assert torch.equal(network[0](x[:count], source[:count]), alone[:count])
    torch.testing.assert_close(alone, expected)


def test_a_convolution_over_few_pixels_has_the_same_bits_alone_and_among_others() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(256, 512, 3, padding=1, bias=False))
    network.eval().requires_grad_(False)
    x = torch.randn(8, 256, 8, 8).to(memory_format=torch.channels_last)
    expected = network(x)
    prepare(network)

    with torch.inference_mode():
        assert torch.equal(torch.cat([network(one) for one in x.split(1)]), network(x))
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-4)
