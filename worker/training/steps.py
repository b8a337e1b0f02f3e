"""One step of training: D learns to tell real from painted, then G learns to fool it, then G_ema follows."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.objectives.augment import augment
from models.objectives.ema import ema_decay, update_ema
from models.objectives.losses import LOSSES
from models.objectives.penalties import gradient_penalty
from models.objectives.precision import autocast
from models.objectives.schedules import learning_rate
from worker.training.data import RealImages
from worker.training.state import TrainingState

REALS_FOR_GENERATOR = {"relativistic"}  # losses in which G, too, is judged against reals


def train_step(state: TrainingState, reals: RealImages, progress: float) -> dict[str, Tensor]:
    """Change both networks once; the losses by name, on the device. `progress` (0 to 1) sets the learning rate."""
    config = state.config
    for optimizer in (state.discriminator_optimizer, state.generator_optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(config, progress)
    with state.own_random():
        losses = discriminator_step(state, reals.next()) | generator_step(state, reals)
    state.steps += 1
    state.images_seen += config.batch_size
    state.images_drawn = reals.drawn
    update_ema(state.generator_ema, state.generator, ema_decay(config, state.images_seen))
    return losses


def discriminator_step(state: TrainingState, real: Tensor) -> dict[str, Tensor]:
    """Move D to tell real [N, C, H, W] from as many pictures of G."""
    config = state.config
    with_penalty = config.penalty_gamma > 0 and state.steps % config.penalty_interval == 0
    with autocast(config, state.device):
        with torch.no_grad():
            fake = state.generator(draw_z(state))
        real.requires_grad_(with_penalty)
        fake.requires_grad_(with_penalty)
        real_logits = state.discriminator(augment(real, config))  # [N]
        fake_logits = state.discriminator(augment(fake, config))  # [N]
        loss = LOSSES[config.loss].discriminator(real_logits, fake_logits).mean()
        losses = {"discriminator": loss.detach()}
        if with_penalty:
            penalty = (gradient_penalty(real, real_logits) + gradient_penalty(fake, fake_logits)).mean()
            losses["penalty"] = penalty.detach()
            # Lazy regularisation: what is paid every k-th step weighs k times. arXiv:1912.04958, B.
            loss = loss + config.penalty_gamma / 2 * config.penalty_interval * penalty
    state.discriminator_optimizer.zero_grad()
    torch.autograd.backward(loss)
    state.discriminator_optimizer.step()
    return losses


def generator_step(state: TrainingState, reals: RealImages) -> dict[str, Tensor]:
    """Move G so that D takes its pictures for real, or for more real than a fresh batch of reals."""
    config = state.config
    with frozen(state.discriminator), autocast(config, state.device):
        fake_logits = state.discriminator(augment(state.generator(draw_z(state)), config))  # [N]
        real_logits = fake_logits.detach()
        if config.loss in REALS_FOR_GENERATOR:
            real_logits = state.discriminator(augment(reals.next(), config))  # [N]
        loss = LOSSES[config.loss].generator(real_logits, fake_logits).mean()
    state.generator_optimizer.zero_grad()
    torch.autograd.backward(loss)
    state.generator_optimizer.step()
    return {"generator": loss.detach()}


def draw_z(state: TrainingState) -> Tensor:
    """A batch of latents, [N, z_dim]."""
    return torch.randn(state.config.batch_size, state.config.network.z_dim, device=state.device)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for a network's own weights, which saves computing them."""
    network.requires_grad_(False)
    yield
    network.requires_grad_(True)
