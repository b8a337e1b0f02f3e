import copy
from collections.abc import Callable

import pytest
import torch

from models.config import TrainConfig
from models.networks.generator import Generator
from models.objectives.ema import ema_decay, update_ema
from models.registry import build_generator


def test_half_of_the_memory_is_gone_after_the_half_life(small_config: Callable[..., TrainConfig]) -> None:
    config = small_config(ema_halflife_kimg=2.0, ema_ramp=1.0, batch_size=32)
    steps = 2000 / 32
    assert ema_decay(config, images_seen=10_000_000) ** steps == pytest.approx(0.5)


def test_early_on_the_memory_is_a_part_of_the_images_seen(small_config: Callable[..., TrainConfig]) -> None:
    config = small_config(ema_halflife_kimg=20.0, ema_ramp=0.05, batch_size=32)
    assert ema_decay(config, images_seen=640) == pytest.approx(0.5)  # 5% of 640 is one batch of 32
    assert ema_decay(config, images_seen=400_000) == ema_decay(config, images_seen=10_000_000)


def test_without_a_half_life_the_average_is_the_live_network(
    small_generator: Generator, small_config: Callable[..., TrainConfig]
) -> None:
    average = build_generator(small_generator.config)
    update_ema(average, small_generator, ema_decay(small_config("classic"), images_seen=640))
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, small_generator.state_dict()[name]), name


def test_weights_and_running_statistics_move_alike_and_w_avg_is_left_alone(small_generator: Generator) -> None:
    average = build_generator(small_generator.config)
    average.w_avg.fill_(3)
    before = copy.deepcopy(average.state_dict())
    update_ema(average, small_generator, 0.9)
    live = small_generator.state_dict()
    moved = {name for name, tensor in average.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"synthesis.norms.0.norm.running_mean", "synthesis.start.weight"} <= moved
    for name, tensor in average.state_dict().items():
        if name == "w_avg":
            assert torch.equal(tensor, before[name])
        elif tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.9 * before[name] + 0.1 * live[name])
        else:
            assert torch.equal(tensor, live[name])


def test_after_many_steps_the_average_is_the_weighted_sum_of_all_that_the_weights_have_been(
    small_generator: Generator,
) -> None:
    average = copy.deepcopy(small_generator)
    live, decay = small_generator.get_parameter("synthesis.start.weight"), 0.8
    history = [live.detach().clone()]
    for _ in range(6):
        with torch.no_grad():
            live.normal_()
        history.append(live.detach().clone())
        update_ema(average, small_generator, decay)
    expected = decay**6 * history[0] + sum((1 - decay) * decay ** (6 - step) * history[step] for step in range(1, 7))
    torch.testing.assert_close(average.get_parameter("synthesis.start.weight").detach(), expected)


def test_the_average_paints_alone_what_the_live_network_paints_in_a_batch(
    small_config: Callable[..., TrainConfig],
) -> None:
    """Averaged statistics must fit averaged weights, or G_ema's pictures are washed out in evaluation mode."""
    config = small_config()
    generator = build_generator(config.network)
    average = copy.deepcopy(generator).eval()
    for step in range(200):
        with torch.no_grad():
            generator(torch.randn(32, 8))
        update_ema(average, generator, ema_decay(config, 32 * (step + 1)))
    z = torch.randn(256, 8)
    with torch.no_grad():
        in_batch, alone = copy.deepcopy(average).train()(z), average(z)
    assert float((in_batch - alone).abs().mean()) < 0.05 * float(in_batch.std())
