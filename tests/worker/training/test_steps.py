import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.config import TrainConfig
from models.objectives.schedules import cosine, learning_rate
from worker.training.data import RealImages
from worker.training.loop import settle
from worker.training.state import TrainingState
from worker.training.steps import discriminator_step, frozen, generator_step, train_step
from worker.training.texts import Texts

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
    real = settle(state, pictures, CPU).next().images
    with state.own_random():
        found = discriminator_step(state, reals.next())
    with TrainingState.start(state.config).own_random():
        z = torch.randn(8, state.config.network.z_dim)
    real_logits, fake_logits = discriminator(real).logits, discriminator(generator(z).detach()).logits
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
    batch = settle(state, pictures, CPU).next()
    with TrainingState.start(config).own_random():
        z = torch.randn(8, config.network.z_dim)
    fake = generator(z).detach().requires_grad_()
    other_real = batch.images.clone().requires_grad_()
    real_logits, fake_logits = discriminator(other_real).logits, discriminator(fake).logits
    slopes = [
        torch.autograd.grad(logits.sum(), images, create_graph=True)[0]
        for images, logits in ((other_real, real_logits), (fake, fake_logits))
    ]
    squared_norms = sum(slope.pow(2).flatten(1).sum(dim=1).mean() for slope in slopes)
    loss = torch.log1p(torch.exp(fake_logits - real_logits)).mean() + 4 * (2.0 / 2) * squared_norms
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    with state.own_random():
        discriminator_step(state, batch)
    for parameter, gradient in zip(state.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-4, rtol=1e-3)


def test_g_learns_through_a_frozen_d(tiny_config: Callable[..., TrainConfig], pictures: np.ndarray) -> None:
    state = TrainingState.start(tiny_config())
    before = [parameter.clone() for parameter in state.discriminator.parameters()]
    with state.own_random():
        generator_step(state, settle(state, pictures, CPU).next())
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


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("loss", ["relativistic", "bce"])
@pytest.mark.parametrize("micro_batch", [4, 3])
def test_the_gradients_of_the_parts_of_a_batch_add_up_to_those_of_the_whole(
    micro_batch: int, loss: str, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    settings = {"precision": "float32", "augment": (), "penalty_interval": 1, "penalty_gamma": 1.0, "loss": loss}
    found, losses = [], []
    for size in (None, micro_batch):
        state = TrainingState.start(tiny_config(shape={"generator_norm": "none"}, micro_batch=size, **settings))
        reals = settle(state, pictures, CPU)
        with state.own_random():
            losses.append(discriminator_step(state, reals.next()))
            # D as it was, so that G's gradients differ by nothing but the parts.
            state.discriminator.load_state_dict(TrainingState.start(state.config).discriminator.state_dict())
            losses[-1] |= generator_step(state, reals.next() if loss == "relativistic" else None)
        found.append(gradients(state.discriminator) + gradients(state.generator))
    assert len(found[0]) == len(found[1]) > 10
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)
    for name, mean in losses[0].items():
        torch.testing.assert_close(losses[1][name], mean, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stages", [1, 2])
def test_frozen_stages_of_d_stay_as_they_are_and_the_others_learn(
    stages: int, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config(frozen_discriminator_stages=stages))
    before = copy.deepcopy(state.discriminator)
    reals = settle(state, pictures, CPU)
    for _ in range(2):
        train_step(state, reals, 0.0)
    kept: list[nn.Module] = before.critic.stages[:stages]  # type: ignore[index, assignment]
    still = [id(parameter) for stage in kept for parameter in stage.parameters()]
    assert still
    for old, new in zip(before.parameters(), state.discriminator.parameters(), strict=True):
        assert torch.equal(old, new) == (id(old) in still)
        assert new.requires_grad == (id(old) not in still)


def test_a_d_that_was_held_still_is_let_go_even_when_memory_ran_out_meanwhile(
    tiny_config: Callable[..., TrainConfig],
) -> None:
    discriminator = TrainingState.start(tiny_config(frozen_discriminator_stages=1)).discriminator
    before = [parameter.requires_grad for parameter in discriminator.parameters()]
    with pytest.raises(torch.OutOfMemoryError), frozen(discriminator):
        assert not any(parameter.requires_grad for parameter in discriminator.parameters())
        raise torch.OutOfMemoryError
    assert [parameter.requires_grad for parameter in discriminator.parameters()] == before
    assert not all(before)
    assert any(before)


def moved(before: nn.Module, after: nn.Module) -> set[str]:
    """The names of the parameters that changed."""
    new = dict(after.named_parameters())
    return {name for name, old in before.named_parameters() if not torch.equal(old, new[name])}


def test_what_a_text_means_is_learnt_in_ds_step_alone_and_how_to_draw_it_in_gs(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    state = TrainingState.start(tiny_config(shape=told))
    reals = settle(state, pictures, CPU, texts)
    before = copy.deepcopy(state.generator)
    with state.own_random():
        discriminator_step(state, reals.next(), texts)
    assert moved(before, state.generator) == {name for name, _ in before.named_parameters() if name.startswith("text.")}
    assert state.discriminator.compare is not None
    assert "compare.weight" in moved(TrainingState.start(state.config).discriminator, state.discriminator)
    before = copy.deepcopy(state.generator)
    with state.own_random():
        generator_step(state, reals.next(), texts)
    own = {name for name, _ in before.named_parameters() if not name.startswith("text.")}
    assert moved(before, state.generator) == own
    assert any(name.startswith("mapping.caption.log_variance") for name in own)


def match_loop(vectors: torch.Tensor, text: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """-log sigmoid(own - other), its mean over a picture's other texts, and over the pictures."""
    losses = []
    for i in range(len(vectors)):
        fits = [(vectors[i] * text[j]).sum() / len(text[j]) ** 0.5 for j in range(len(text))]
        others = [torch.log1p(torch.exp(fits[j] - fits[i])) for j in range(len(text)) if not same[i, j]]
        losses.append(torch.stack(others).mean() if others else torch.zeros(()))
    return torch.stack(losses).mean()


def test_texts_steer_d_as_the_formulae_written_out_by_hand_say(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    config = tiny_config(
        shape=told, precision="float32", augment=(), penalty_gamma=0.0, matching_weight=0.7, caption_dropout=0.2
    )
    state = TrainingState.start(config)
    batch = settle(state, pictures, CPU, texts).next()
    generator, discriminator = copy.deepcopy((state.generator, state.discriminator))
    assert generator.text is not None
    with TrainingState.start(config).own_random():
        shown = texts.show(batch.rows, config, CPU)
        text = generator.text(shown.features)
        fake = generator(torch.randn(8, config.network.z_dim), text).detach()
    real_opinion, fake_opinion = discriminator(batch.images), discriminator(fake)
    fits = [(opinion.vector * text).sum(dim=1) / 8**0.5 for opinion in (real_opinion, fake_opinion)]
    margin = (real_opinion.logits[:, 0] + fits[0]) - (fake_opinion.logits[:, 0] + fits[1])
    loss = torch.log1p(torch.exp(-margin)).mean() + 0.7 * match_loop(real_opinion.vector, text, shown.same)
    learning = [*discriminator.parameters(), *generator.text.parameters()]
    expected = torch.autograd.grad(loss, learning)
    with state.own_random():
        discriminator_step(state, batch, texts)
    assert state.generator.text is not None
    for parameter, gradient in zip(
        [*state.discriminator.parameters(), *state.generator.text.parameters()], expected, strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
        assert gradient.abs().max() > 0


def test_texts_steer_g_as_the_formulae_written_out_by_hand_say(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray, texts: Texts
) -> None:
    settings = {"matching_weight": 0.7, "caption_kl_weight": 0.3, "caption_layout_weight": 0.9}
    config = tiny_config(shape=told, precision="float32", augment=(), **settings)
    state = TrainingState.start(config)
    batch = settle(state, pictures, CPU, texts).next()
    generator, discriminator = copy.deepcopy((state.generator, state.discriminator))
    assert generator.text is not None
    with TrainingState.start(config).own_random():
        shown = texts.show(batch.rows, config, CPU)
        text = generator.text(shown.features).detach()
        fake = generator(torch.randn(8, config.network.z_dim), text)
    real_opinion, fake_opinion = discriminator(batch.images), discriminator(fake)
    fits = [(opinion.vector * text).sum(dim=1) / 8**0.5 for opinion in (real_opinion, fake_opinion)]
    margin = (fake_opinion.logits[:, 0] + fits[1]) - (real_opinion.logits[:, 0] + fits[0]).detach()
    loss = torch.log1p(torch.exp(-margin)).mean() + 0.7 * match_loop(fake_opinion.vector, text, shown.same)
    loss = loss + 0.3 * generator.mapping.divergence(text).mean()
    for picture in range(8):  # means over 4x4 pixels
        ours, theirs = (x[picture].reshape(3, 8, 4, 8, 4).mean(dim=(2, 4)) for x in (fake, batch.images))
        loss = loss + 0.9 * shown.alone[picture] * (ours - theirs).abs().mean() / 8
    learning = [*generator.mapping.parameters(), *generator.synthesis.parameters()]
    expected = torch.autograd.grad(loss, learning)
    with state.own_random():
        generator_step(state, batch, texts)
    for parameter, gradient in zip(
        [*state.generator.mapping.parameters(), *state.generator.synthesis.parameters()], expected, strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-3)
    assert state.generator.text is not None
    assert all(parameter.grad is None for parameter in state.generator.text.parameters())


def test_networks_that_know_texts_are_not_trained_without(
    tiny_config: Callable[..., TrainConfig], told: dict[str, Any], pictures: np.ndarray
) -> None:
    state = TrainingState.start(tiny_config(shape=told))
    with pytest.raises(ValueError, match="takes the texts of the dataset"):
        train_step(state, settle(state, pictures, CPU), 0.0)


@pytest.mark.parametrize("loss", ["bce", "hinge", "relativistic", "wasserstein"])
@pytest.mark.parametrize("architecture", ["dcgan", "fastgan", "r3gan"])
def test_every_architecture_takes_every_loss_with_texts_and_every_penalty(
    architecture: str,
    loss: str,
    tiny_config: Callable[..., TrainConfig],
    told: dict[str, Any],
    pictures: np.ndarray,
    texts: Texts,
) -> None:
    shape = told | {"architecture": architecture}
    if architecture == "r3gan":
        shape |= {"discriminator_widths": (16, 8, 8, 8), "group_size": 4}
    penalty = {"wasserstein": "wgan_gp", "bce": "r1"}.get(loss, "r1_r2")
    redraws = {"reconstruction_weight": 1.0} if architecture == "fastgan" else {}
    state = TrainingState.start(tiny_config(shape=shape, loss=loss, penalty=penalty, penalty_gamma=1.0, **redraws))
    losses = train_step(state, settle(state, pictures, CPU, texts), 0.0, texts)
    expected = {"discriminator", "generator", "matching", "layout", "penalty"}
    expected |= {"redrawing"} if redraws else set()
    assert losses.keys() == expected
    assert all(bool(value.isfinite()) for value in losses.values())


def test_the_share_of_changed_pictures_follows_ds_certainty_a_step_at_a_time(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    moves = {}
    for target in (0.0, 0.99):
        config = tiny_config(augment_target=target, augment_probability=0.5, augment_kimg=1.0, learning_rate=0.01)
        state = TrainingState.start(config)
        reals = settle(state, pictures, CPU)
        shares = []
        for _ in range(9):
            train_step(state, reals, 0.0)
            shares.append(state.augment_probability)
        assert [shares[i] == shares[i - 1] for i in range(1, 9)] == [True, True, True, False, True, True, True, False]
        moves[target] = shares[8] - shares[4]
    assert moves == pytest.approx({0.0: 4 * 8 / 1000, 0.99: -4 * 8 / 1000})


def test_the_rate_is_scaled_and_beta2_and_gamma_follow_their_cosines(
    tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(final_adam_beta2=0.5, penalty_gamma=4.0, final_penalty_gamma=0.0, penalty_interval=1)
    state = TrainingState.start(config)
    state.rate_scale = 0.25
    reals = settle(state, pictures, CPU)
    assert "penalty" in train_step(state, reals, progress=0.3)
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        group = optimizer.param_groups[0]
        assert group["lr"] == pytest.approx(0.25 * learning_rate(config, 0.3))
        assert group["betas"] == (0.0, pytest.approx(cosine(0.3, config.adam_beta2, 0.5)))
    assert "penalty" not in train_step(state, reals, progress=1.0)  # gamma has come to 0
