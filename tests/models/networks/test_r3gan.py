from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.config import NetworkConfig, TrainConfig
from models.networks.r3gan import Block, Critic, Modulation
from models.registry import build_discriminator, build_generator

# arXiv:2501.05441, FFHQ: feature maps at 4, 8 ... 256 pixels, z of 64, two blocks a stage, 3x3 in groups of 16.
FFHQ = (768, 768, 768, 768, 384, 192, 96)

PenaltySlopes = Callable[[nn.Module, Tensor, list[nn.Parameter]], tuple[float, float]]


def small(resolution: int = 32, **fields: object) -> NetworkConfig:
    stages = resolution.bit_length() - 2
    widths = (12, 8, 8, 8, 8, 8, 8, 8)[:stages]
    shape = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "generator_widths": widths, "discriminator_widths": widths}
    return NetworkConfig.model_validate(
        {"architecture": "r3gan", "resolution": resolution, "blocks": 2, "group_size": 4, **shape} | fields
    )


def awake(network: nn.Module) -> nn.Module:
    """A network whose blocks do something, as after some training."""
    for module in network.modules():
        if isinstance(module, Block):
            nn.init.normal_(module.narrow.weight, 0.0, 0.1)
    return network


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_pictures_of_every_resolution_are_painted_and_judged(resolution: int, mapping_layers: int) -> None:
    network = small(resolution, mapping_layers=mapping_layers, channels=1 + mapping_layers)
    generator, discriminator = build_generator(network), build_discriminator(network)
    with torch.no_grad():
        w = generator.mapping(torch.randn(2, 8))
        x = generator.synthesis(w)
        features = discriminator.critic(x)
    assert w.shape == (2, network.num_ws, 8)
    assert x.shape == (2, network.channels, resolution, resolution)
    assert features.logits.shape == (2, 1)
    assert features.summary.shape == (2, 12) == (2, discriminator.critic.summary_dim)


def test_the_256_pixel_networks_have_the_papers_parameters_counted_layer_by_layer() -> None:
    """23.06 and 23.01 million."""
    widths = {"generator_widths": FFHQ, "discriminator_widths": FFHQ}
    network = small(256, z_dim=64, w_dim=64, mapping_layers=0, group_size=16, **widths)
    with torch.device("meta"):
        generator, discriminator = build_generator(network), build_discriminator(network)
    blocks = 2 * sum(c * 2 * c + 2 * c + 2 * c * 16 * 9 + 2 * c + 2 * c * c for c in FFHQ)
    projections = 768 * 384 + 384 * 192 + 192 * 96
    start, end = 768 * 4 * 4 + 64 * 768, 768 * 4 * 4 + 768
    pixels = 96 * 3
    assert sum(p.numel() for p in generator.parameters()) == start + blocks + projections + pixels == 23_057_952
    assert sum(p.numel() for p in discriminator.parameters()) == pixels + blocks + projections + end == 23_009_568


def test_a_new_block_changes_nothing_and_an_awake_one_is_the_papers_computed_by_matrices() -> None:
    block = Block(6, group_size=4, count=10)
    x = torch.randn(2, 6, 5, 5)
    assert torch.equal(block(x), x)

    nn.init.normal_(block.narrow.weight)
    nn.init.normal_(block.group.bias)
    leak = nn.LeakyReLU(0.2)
    wide = leak(torch.einsum("oi,nihw->nohw", block.widen.weight[:, :, 0, 0], x) + block.widen.bias[:, None, None])
    padded = nn.functional.pad(wide, (1, 1, 1, 1))
    grouped = torch.zeros(2, 12, 5, 5)
    for group in range(3):
        maps = slice(4 * group, 4 * group + 4)
        for row in range(3):
            for column in range(3):
                seen = padded[:, maps, row : row + 5, column : column + 5]
                grouped[:, maps] += torch.einsum("oi,nihw->nohw", block.group.weight[maps, :, row, column], seen)
    grouped = leak(grouped + block.group.bias[:, None, None])
    expected = x + torch.einsum("oi,nihw->nohw", block.narrow.weight[:, :, 0, 0], grouped)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-4)


def test_first_weights_shrink_with_the_fourth_root_of_the_count_of_blocks() -> None:
    critic = Critic(small(64, blocks=3, generator_widths=(96,) * 5, discriminator_widths=(96,) * 5, group_size=16))
    blocks = [module for module in critic.modules() if isinstance(module, Block)]
    assert len(blocks) == 15
    gain = (2 / 1.04) ** 0.5 / 15**0.25
    for block in blocks:
        assert float(block.widen.weight.detach().std()) == pytest.approx(gain / 96**0.5, rel=0.05)
        assert float(block.group.weight.detach().std()) == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.05)
        assert not block.narrow.weight.any()


def test_a_new_generator_without_styles_is_linear_in_w() -> None:
    """Every block is the identity at first, and nothing else in it bends."""
    synthesis = build_generator(small(64, mapping_layers=0)).synthesis
    a, b = torch.randn(3, 1, 8), torch.randn(3, 1, 8)
    torch.testing.assert_close(synthesis(2 * a - b), 2 * synthesis(a) - synthesis(b), rtol=1e-4, atol=1e-5)


def test_the_scale_of_z_and_of_pictures_is_kept_by_the_first_weights() -> None:
    widths = (96, 96, 64, 32, 32)
    network = small(64, generator_widths=widths, discriminator_widths=widths, mapping_layers=0)
    generator, critic = build_generator(network), Critic(network)
    spreads: list[float] = []
    for stage in [*generator.synthesis.stages]:  # type: ignore[arg-type]
        stage.register_forward_hook(lambda _m, _i, output: spreads.append(float(output.square().mean())))
    with torch.no_grad():
        x = generator(torch.randn(32, 8))
        summary = critic((torch.rand(32, 3, 1, 1) * 2 - 1).expand(32, 3, 64, 64)).summary
    assert spreads[0] == pytest.approx(1.0, rel=0.25)
    assert min(spreads) > 0.2  # the filter averages noise away, and does no more
    assert max(spreads) < 1.5
    assert 0.2 < float(x.std()) < 1.5
    assert 0.1 < float(summary.square().mean()) < 0.6  # of colours with a mean square of 1/3


def test_modulation_scales_and_shifts_by_w_and_starts_near_the_identity() -> None:
    layer = Modulation(3, 4)
    x, w = torch.randn(2, 3, 5, 5), torch.randn(2, 4)
    torch.testing.assert_close(layer(x, w), x, rtol=0.3, atol=0.3)
    nn.init.normal_(layer.affine.weight)
    nn.init.normal_(layer.affine.bias)
    for picture in range(2):
        for channel in range(3):
            scale = layer.affine.weight[channel] @ w[picture] + layer.affine.bias[channel]
            shift = layer.affine.weight[3 + channel] @ w[picture] + layer.affine.bias[3 + channel]
            expected = (1 + scale) * x[picture, channel] + shift
            torch.testing.assert_close(layer(x, w)[picture, channel], expected)


def test_each_w_styles_its_own_stage_only_and_changes_the_picture() -> None:
    generator = build_generator(small(64))
    styles = list(generator.synthesis.styles)  # type: ignore[arg-type]
    seen: dict[int, Tensor] = {}
    for stage, style in enumerate(styles):
        style.affine.register_forward_hook(lambda _m, _i, output, stage=stage: seen.__setitem__(stage, output.clone()))
    w = generator.mapping(torch.randn(1, 8))
    x = generator.synthesis(w)
    assert generator.num_ws == len(styles) == 5
    for changed in range(generator.num_ws):
        before = dict(seen)
        other = w.clone()
        other[:, changed] += 1
        assert not torch.equal(generator.synthesis(other), x)
        assert [stage for stage in seen if not torch.equal(seen[stage], before[stage])] == [changed]
        generator.synthesis(w)


def test_a_picture_is_a_function_of_its_w_alone_and_each_is_judged_alone() -> None:
    generator, discriminator = awake(build_generator(small())), awake(build_discriminator(small()))
    z = torch.randn(4, 8)
    x = generator(z)
    torch.rand(7)
    assert torch.equal(generator(z), x)
    torch.testing.assert_close(torch.cat([generator(one[None]) for one in z]), x)
    torch.testing.assert_close(torch.cat([discriminator(one[None]).logits for one in x]), discriminator(x).logits)


def test_gradients_reach_every_weight() -> None:
    generator, discriminator = awake(build_generator(small())), awake(build_discriminator(small()))
    discriminator(generator(torch.randn(8, 8))).logits.square().mean().backward()
    for name, weight in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_slope_of_the_gradient_penalty_is_that_of_finite_differences(penalty_slopes: PenaltySlopes) -> None:
    critic = awake(Critic(small())).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    weights = list(critic.parameters())
    by_differences, expected = penalty_slopes(critic, x, weights)
    assert by_differences == pytest.approx(expected, rel=1e-3)


def test_logits_summary_and_pictures_have_the_weights_precision_under_autocast() -> None:
    generator, discriminator = awake(build_generator(small())), awake(build_discriminator(small()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = generator(torch.randn(4, 8))
        features = discriminator.critic(x)
    assert x.dtype == features.logits.dtype == features.summary.dtype == torch.float32
    torch.testing.assert_close(features.logits, discriminator.critic(x).logits, rtol=0.1, atol=0.05)


def test_a_width_that_groups_do_not_part_is_refused() -> None:
    with pytest.raises(ValueError, match="Width 8 is 16 maps in a block: no multiple of group_size 12"):
        build_generator(small(group_size=12))


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_a_checkpoint_paints_the_same_pictures(
    mapping_layers: int, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = small_config(network=small(mapping_layers=mapping_layers).model_dump())
    generator = build_generator(config.network)
    awake(generator)
    path = tmp_path / "r3gan.safetensors"
    save_checkpoint(path, generator, CheckpointMeta(config=config, kimg=1, minutes=1))
    loaded, _ = load_generator(path)
    z = torch.randn(3, 8)
    assert torch.equal(loaded(z), generator(z))
