import copy
from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.config import TrainConfig
from models.objectives.schedules import learning_rate
from worker.training.data import RealImages
from worker.training.loop import settle
from worker.training.state import TrainingState
from worker.training.steps import discriminator_step, generator_step, train_step

CPU = torch.device("cpu")


def test_a_step_moves_both_networks_and_counts_the_images(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config())
    before = copy.deepcopy((state.generator.state_dict(), state.discriminator.state_dict()))
    losses = train_step(state, settle(state, pictures, CPU), 0.0)
    for old, network in zip(before, (state.generator, state.discriminator), strict=True):
        assert any(not torch.equal(old[name], tensor) for name, tensor in network.state_dict().items())
    assert losses.keys() == {"discriminator", "generator", "penalty"}
    assert (state.steps, state.images_seen, state.images_drawn) == (1, 8, 16)


def test_penalties_come_every_interval_th_step_and_the_rate_follows_the_schedule(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config(penalty_interval=3))
    reals = settle(state, pictures, CPU)
    penalised = ["penalty" in train_step(state, reals, progress=0.5) for _ in range(7)]
    assert penalised == [True, False, False, True, False, False, True]
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        assert optimizer.param_groups[0]["lr"] == learning_rate(state.config, 0.5)


def test_the_textbook_losses_are_those_of_binary_cross_entropy(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config("classic", precision="float32"))
    generator, discriminator = copy.deepcopy((state.generator, state.discriminator))
    reals = settle(state, pictures, CPU)
    real = settle(state, pictures, CPU).next()
    with state.own_random():
        found = discriminator_step(state, reals.next())
    with TrainingState.start(state.config).own_random():
        z = torch.randn(8, state.config.network.z_dim)
    real_logits, fake_logits = discriminator(real), discriminator(generator(z).detach())
    expected = binary_cross_entropy_with_logits(
        real_logits, torch.ones_like(real_logits)
    ) + binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    torch.testing.assert_close(found["discriminator"], expected, atol=1e-5, rtol=1e-5)


def test_the_penalty_steers_d_as_its_gradient_written_out_by_hand_says(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(precision="float32", augment=(), penalty_gamma=2.0, penalty_interval=4)
    state = TrainingState.start(config)
    generator, discriminator = copy.deepcopy((state.generator, state.discriminator))
    real = settle(state, pictures, CPU).next()
    with TrainingState.start(config).own_random():
        z = torch.randn(8, config.network.z_dim)
    fake = generator(z).detach().requires_grad_()
    other_real = real.clone().requires_grad_()
    real_logits, fake_logits = discriminator(other_real), discriminator(fake)
    slopes = [
        torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
        for images, logits in ((other_real, real_logits), (fake, fake_logits))
    ]
    squared_norms = sum(slope.pow(2).flatten(1).sum(dim=1).mean() for slope in slopes)
    loss = torch.log1p(torch.exp(fake_logits - real_logits)).mean() + 4 * (2.0 / 2) * squared_norms
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    with state.own_random():
        discriminator_step(state, real)
    for parameter, gradient in zip(state.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)


def test_g_learns_through_a_frozen_d(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    state = TrainingState.start(tiny_config())
    before = [parameter.clone() for parameter in state.discriminator.parameters()]
    with state.own_random():
        generator_step(state, settle(state, pictures, CPU))
    for old, parameter in zip(before, state.discriminator.parameters(), strict=True):
        assert torch.equal(old, parameter)
        assert parameter.grad is None
        assert parameter.requires_grad


def test_d_learns_to_tell_pictures_of_an_untrained_g_from_real_ones(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config(augment=()))
    reals: RealImages = settle(state, pictures, CPU)
    with state.own_random():
        losses = [float(discriminator_step(state, reals.next())["discriminator"]) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_bfloat16_trains_as_float32_does_but_for_rounding(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        state = TrainingState.start(tiny_config(precision=precision))
        losses.append(train_step(state, settle(state, pictures, CPU), 0.0))
        assert all(parameter.dtype == torch.float32 for parameter in state.generator.parameters())
    for name, exact in losses[0].items():
        torch.testing.assert_close(losses[1][name], exact, atol=0.02, rtol=0.05)
    assert losses[0] != losses[1]
