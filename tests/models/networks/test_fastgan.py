from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.config import NetworkConfig, TrainConfig
from models.networks.fastgan import Critic
from models.networks.layers import ModulatedNorm, SkipExcitation
from models.registry import build_discriminator, build_generator

RESOLUTIONS = (32, 64, 128, 256, 512)
# The paper's table, times 64: feature maps of G at 4, 8 ... 512 pixels.
PAPER = {4: 1024, 8: 512, 16: 256, 32: 128, 64: 128, 128: 64, 256: 32, 512: 16}

PenaltySlopes = Callable[[nn.Module, Tensor, list[nn.Parameter]], tuple[float, float]]


def small(resolution: int = 64, **fields: object) -> NetworkConfig:
    stages = resolution.bit_length() - 2
    shape = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "upsampling": "resize"}
    widths = {"generator_widths": (8,) * stages, "discriminator_widths": (8,) * (stages - 1)}
    return NetworkConfig.model_validate(
        {"architecture": "fastgan", "resolution": resolution, **shape, **widths} | fields
    )


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def shapes(network: nn.Module, kind: type[nn.Module]) -> Iterator[list[tuple[int, ...]]]:
    """Filled as the network runs: the shapes of what each layer of a kind takes."""
    for module in network.modules():
        if isinstance(module, kind):
            seen: list[tuple[int, ...]] = []
            module.register_forward_hook(
                lambda _m, inputs, output, seen=seen: seen.extend(
                    [*(tuple(i.shape) for i in inputs), tuple(output.shape)]
                )
            )
            yield seen


@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_pictures_of_every_resolution_are_painted_and_judged_at_50_places(resolution: int, mapping_layers: int) -> None:
    network = small(resolution, mapping_layers=mapping_layers, channels=1 + mapping_layers)
    generator, discriminator = build_generator(network), build_discriminator(network)
    with torch.no_grad():
        w = generator.mapping(torch.randn(2, 8))
        x = generator.synthesis(w)
        features = discriminator.critic(x)
    assert w.shape == (2, network.num_ws, 8)
    assert x.shape == (2, network.channels, resolution, resolution)
    assert features.logits.shape == (2, 50)
    assert features.summary.shape == (2, discriminator.critic.summary_dim)
    assert [tuple(m.shape[1:]) for m in features.maps] == [(8, 4, 4), (8, 16, 16)]


def test_the_256_pixel_generator_has_the_papers_stages_and_parameters() -> None:
    sides = [4, 8, 16, 32, 64, 128, 256]
    network = small(
        256, mapping_layers=0, z_dim=256, w_dim=256, generator_widths=[PAPER[side] for side in sides], channels=3
    )
    with torch.device("meta"):
        generator = build_generator(network)
        norms = list(shapes(generator, nn.BatchNorm2d))
        generator(torch.empty(1, 256))
    # Twice the maps before each GLU; two convolutions in the stages of 8, 32 and 128 pixels, and one in the others.
    order = [4, 8, 8, 16, 32, 32, 64, 128, 128, 256]
    assert [seen[0] for seen in norms] == [(1, 2 * PAPER[side], side, side) for side in order]

    start = 256 * 2 * 1024 * 4 * 4
    ups = sum(9 * PAPER[side] * 2 * PAPER[2 * side] for side in sides[:-1])
    seconds = sum(9 * PAPER[side] * 2 * PAPER[side] for side in (8, 32, 128))
    gates = sum(
        (16 * PAPER[side] + 1) * PAPER[16 * side] + (PAPER[16 * side] + 1) * PAPER[16 * side] for side in (4, 8, 16)
    )
    affine = sum(2 * 2 * PAPER[side] for side in order)
    assert parameters(generator) == start + ups + seconds + gates + affine + (9 * 32 + 1) * 3


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_critic_has_the_parameters_of_its_layers(norm: str) -> None:
    four, eight, sixteen, thirtytwo = 40, 32, 24, 16
    network = small(64, discriminator_widths=(four, eight, sixteen, thirtytwo), discriminator_norm=norm)
    after = 2 if norm == "batch" else 1  # a scale and a shift a map, or a bias
    stem = 3 * thirtytwo * 16 + thirtytwo
    downs = [(thirtytwo, sixteen), (sixteen, eight), (eight, four)]
    stages = sum(16 * i * o + 9 * o * o + i * o + 3 * after * o for i, o in downs)
    gate = (16 * thirtytwo + 1) * four + (four + 1) * four  # 32 pixels gate 4
    copy = 3 * thirtytwo * 16 + thirtytwo  # at 16 pixels, as wide as the stem, then likewise at 8, then as at 16
    copy += 16 * thirtytwo * thirtytwo + after * thirtytwo + 16 * thirtytwo * sixteen + after * sixteen
    logits = 16 * four + 16 * sixteen
    critic = Critic(network)
    redrawing = parameters(critic.redraw_whole) + parameters(critic.redraw_part)
    assert parameters(critic) == stem + stages + gate + copy + logits + redrawing


@pytest.mark.parametrize(
    ("resolution", "in_generator", "in_critic"),
    [
        (32, [], []),
        (64, [(64, 4)], [(4, 32)]),
        (256, [(64, 4), (128, 8), (256, 16)], [(16, 128), (8, 64), (4, 32)]),
        (512, [(64, 4), (128, 8), (256, 16), (512, 32)], [(32, 256), (16, 128), (8, 64), (4, 32)]),
    ],
)
def test_features_gate_those_of_16_times_their_side_in_g_and_of_an_eighth_in_d(
    resolution: int, in_generator: list[tuple[int, int]], in_critic: list[tuple[int, int]]
) -> None:
    generator, discriminator = build_generator(small(resolution)).eval(), build_discriminator(small(resolution))
    painted, judged = list(shapes(generator, SkipExcitation)), list(shapes(discriminator, SkipExcitation))
    with torch.no_grad():
        discriminator(generator(torch.randn(1, 8)))
    assert [(seen[0][-1], seen[1][-1]) for seen in painted] == in_generator
    assert [(seen[0][-1], seen[1][-1]) for seen in judged] == in_critic


def test_each_w_styles_its_own_stage_only_and_changes_the_picture() -> None:
    generator = build_generator(small()).eval()
    synthesis = generator.synthesis
    styled = [[synthesis.start.norm.affine]] + [[layer.norm.affine for layer in stage] for stage in synthesis.stages]  # type: ignore[union-attr]
    seen: dict[nn.Module, Tensor] = {}
    for affines in styled:
        for affine in affines:
            affine.register_forward_hook(lambda module, _i, output: seen.__setitem__(module, output.clone()))
    w = generator.mapping(torch.randn(1, 8))
    x = generator.synthesis(w)
    assert generator.num_ws == len(styled) == 5
    for changed in range(generator.num_ws):
        before = dict(seen)
        other = w.clone()
        other[:, changed] += 1
        assert not torch.equal(generator.synthesis(other), x)
        moved = [stage for stage, affines in enumerate(styled) for a in affines if not torch.equal(seen[a], before[a])]
        assert set(moved) == {changed}
        assert len(moved) == len(styled[changed])
        generator.synthesis(w)


def test_a_picture_is_a_function_of_its_w_alone() -> None:
    generator = build_generator(small()).eval()
    w = generator.mapping(torch.randn(5, 8))
    x = generator.synthesis(w)
    torch.rand(7)
    assert torch.equal(generator.synthesis(w), x)
    alone = torch.cat([generator.synthesis(one[None]) for one in w])
    torch.testing.assert_close(alone, x)
    assert float(x.detach().abs().max()) <= 1


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gradients_reach_every_weight(norm: str) -> None:
    network = small(discriminator_norm=norm)
    generator, discriminator = build_generator(network), build_discriminator(network)
    x = generator(torch.randn(8, 8))
    features = discriminator.critic(x)
    sum(
        (features.logits.square().mean(), discriminator.critic.redraw_loss(x, features.maps)), start=torch.zeros(())
    ).backward()
    for name, weight in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_the_slope_of_the_gradient_penalty_is_that_of_finite_differences(penalty_slopes: PenaltySlopes) -> None:
    critic = Critic(small()).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    weights = [weight for name, weight in critic.named_parameters() if not name.startswith("redraw")]
    by_differences, expected = penalty_slopes(critic, x, weights)
    assert by_differences == pytest.approx(expected, rel=1e-3)


def test_without_norms_each_picture_is_judged_alone() -> None:
    discriminator = build_discriminator(small())
    x = torch.randn(4, 3, 64, 64)
    alone = torch.cat([discriminator(picture[None]).logits for picture in x])
    torch.testing.assert_close(discriminator(x).logits, alone)


@pytest.mark.parametrize("resolution", [64, 256])
def test_without_norms_the_first_weights_keep_the_scale_from_the_pixels_to_the_logits(resolution: int) -> None:
    critic = Critic(small(resolution, discriminator_widths=(64, 64, 32, 32, 16, 16)[: resolution.bit_length() - 3]))
    smooth = functional.interpolate(torch.randn(16, 3, 4, 4), size=resolution, mode="bilinear")
    with torch.no_grad():
        features = critic(smooth)
    # Every layer's own share of a loss would be a factor of 2 to 4 over 4 to 6 stages.
    assert 0.25 < float(features.maps[0].square().mean() / smooth.square().mean()) < 4
    assert 0.2 < float(features.logits.std()) < 5


def test_a_factor_on_a_convolution_before_a_batch_norm_changes_nothing() -> None:
    """So spectral norm, which is such a factor, has nothing to do there."""
    critic = Critic(small(discriminator_norm="batch"))
    for norm in (m for m in critic.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.eps = 1e-20
    x = torch.randn(8, 3, 64, 64)
    before = critic(x).logits
    with torch.no_grad():
        for stage in critic.stages[1:]:  # type: ignore[index]
            for layer in (stage.direct[0], stage.direct[3], stage.averaged[1]):
                layer.weight.mul_(7)
    torch.testing.assert_close(critic(x).logits, before, rtol=1e-3, atol=1e-5)


def test_logits_summary_and_pictures_have_the_weights_precision_under_autocast() -> None:
    network = small()
    generator, discriminator = build_generator(network), build_discriminator(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = generator(torch.randn(4, 8))
        features = discriminator.critic(x)
        loss = discriminator.critic.redraw_loss(x, features.maps)
    assert x.dtype == features.logits.dtype == features.summary.dtype == loss.dtype == torch.float32
    plain = discriminator.critic(x)
    torch.testing.assert_close(features.logits, plain.logits, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("resolution", [64, 256])
def test_a_quarter_is_compared_with_the_same_quarter_of_the_picture(resolution: int) -> None:
    critic = Critic(small(resolution))
    critic.redraw_whole, critic.redraw_part = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    side = resolution // 2
    x = torch.rand(2, 3, resolution, resolution) * 2 - 1
    # With a picture for its own features, whatever quarter chance picks, the redrawn is the drawn.
    perfect = (functional.interpolate(x, size=side, mode="area"), x)
    assert max(float(critic.redraw_loss(x, perfect)) for _ in range(8)) < 1e-4
    turned = (perfect[0], x.flip(2))
    assert min(float(critic.redraw_loss(x, turned)) for _ in range(8)) > 0.5


def test_each_quarter_is_redrawn_in_some_steps() -> None:
    critic = Critic(small())
    critic.redraw_whole, critic.redraw_part = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    x = torch.rand(1, 3, 64, 64)
    for row, column in ((0, 0), (0, 32), (32, 0), (32, 32)):
        spoilt = x.clone()
        spoilt[:, :, row : row + 32, column : column + 32] = -1
        maps = (functional.interpolate(x, size=32, mode="area"), spoilt)
        noticed = [float(critic.redraw_loss(x, maps)) > 0.1 for _ in range(60)]
        assert 0 < sum(noticed) < 60


def test_the_critic_learns_to_redraw_a_picture() -> None:
    critic = Critic(small())
    row = torch.linspace(-1, 1, 64)
    x = torch.stack([row[:, None].expand(64, 64), row[None, :].expand(64, 64), row[:, None] * row[None, :]])[None]
    x = torch.cat([x, x.flip(2)])
    adam = torch.optim.Adam(critic.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = critic.redraw_loss(x, critic(x).maps)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


@pytest.mark.parametrize("mapping_layers", [0, 2])
def test_a_checkpoint_paints_the_same_pictures(
    mapping_layers: int, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = small_config(network=small(mapping_layers=mapping_layers).model_dump())
    generator = build_generator(config.network)
    with torch.no_grad():
        generator(torch.randn(16, 8))  # so that pictures depend on the batch norms' buffers
    path = tmp_path / "fastgan.safetensors"
    save_checkpoint(path, generator, CheckpointMeta(config=config, kimg=1, minutes=1))
    loaded, _ = load_generator(path)
    z = torch.randn(3, 8)
    assert torch.equal(loaded(z), generator.eval()(z))
    assert any(isinstance(module, ModulatedNorm) for module in loaded.modules()) == (mapping_layers > 0)
