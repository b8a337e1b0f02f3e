"""One step of training: D learns to tell real from painted, then G learns to fool it, then G_ema follows."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.networks.discriminator import Critique
from models.objectives.adaptive import adjust, overfitting_signal
from models.objectives.augment import augment
from models.objectives.ema import ema_decay, update_ema
from models.objectives.layout import layout_loss
from models.objectives.losses import LOSSES, matching_loss
from models.objectives.penalties import gradient_penalty, interpolated, unit_gradient_penalty
from models.objectives.precision import autocast
from models.objectives.schedules import adam_beta2, learning_rate, penalty_gamma
from worker.training.data import RealBatch, RealImages
from worker.training.ranks import ALONE, Ranks
from worker.training.state import TrainingState
from worker.training.texts import Shown, Texts

REALS_FOR_GENERATOR = {"relativistic"}  # losses in which G, too, is judged against reals
ADJUST_INTERVAL = 4  # steps between adjustments of the augmentation (arXiv:2006.06676, 3.1)

Losses = dict[str, Tensor]


def train_step(
    state: TrainingState, reals: RealImages, progress: float, texts: Texts | None = None, ranks: Ranks = ALONE
) -> Losses:
    """Change both networks once; the losses by name, on the device. `progress` (0 to 1) sets the learning rate.

    texts: what the pictures show, where the networks know texts.
    """
    config = state.config
    for optimizer in (state.discriminator_optimizer, state.generator_optimizer):
        group = optimizer.param_groups[0]
        group["lr"] = learning_rate(config, progress) * state.rate_scale
        group["betas"] = (config.adam_beta1, adam_beta2(config, progress))
    with state.own_random():
        losses = discriminator_step(state, reals.next(), texts, ranks, penalty_gamma(config, progress))
        fresh = reals.next() if texts is not None or config.loss in REALS_FOR_GENERATOR else None
        losses |= generator_step(state, fresh, texts, ranks)
    if config.augment_target is not None and state.steps % ADJUST_INTERVAL == 0:
        seen = config.batch_size * ADJUST_INTERVAL
        state.augment_probability = adjust(state.augment_probability, float(losses.pop("signal")), config, seen)
    state.steps += 1
    state.images_seen += config.batch_size
    state.images_drawn = reals.drawn
    update_ema(state.generator_ema, state.generator, ema_decay(config, state.images_seen))
    return losses


def discriminator_step(
    state: TrainingState,
    reals: RealBatch,
    texts: Texts | None = None,
    ranks: Ranks = ALONE,
    gamma: float | None = None,
) -> Losses:
    """Move D to tell reals from as many pictures of G, and a picture's own text from those of others."""
    sums: Losses = {}
    state.discriminator_optimizer.zero_grad()
    for part in reals.parts(state.micro_batch):
        share = len(part.rows) / len(reals.rows)
        total = _discriminator_loss(state, part, texts, ranks, state.config.penalty_gamma if gamma is None else gamma)
        torch.autograd.backward(total.pop("total") * share)
        _accumulate(sums, total, share)
    means = ranks.average(state.discriminator_optimizer, sums)
    state.discriminator_optimizer.step()
    return means


def _discriminator_loss(
    state: TrainingState, reals: RealBatch, texts: Texts | None, ranks: Ranks, gamma: float
) -> Losses:
    config, real = state.config, reals.images
    with_penalty = gamma > 0 and state.steps % config.penalty_interval == 0
    at_reals, at_fakes = with_penalty and config.penalty != "wgan_gp", with_penalty and config.penalty == "r1_r2"
    with autocast(config, state.device):
        shown, text = read(state, reals, texts, ranks)
        z = draw_z(state, len(real), ranks)
    with autocast(config, state.device), ranks.own_chance(state.device):
        with torch.no_grad():
            fake = state.generator(z, text)
        seen = augment(real.requires_grad_(at_reals), config, state.augment_probability)
        of_real: Critique = state.discriminator(seen)
        of_fake: Critique = state.discriminator(
            augment(fake.requires_grad_(at_fakes), config, state.augment_probability)
        )
        real_logits, fake_logits = of_real.given(text), of_fake.given(text)  # [N, L]
        loss = LOSSES[config.loss].discriminator(real_logits, fake_logits).mean()
        losses = {"discriminator": loss.detach()}
        if shown is not None and text is not None and config.matching_weight > 0:
            matching = matching_loss(of_real.match(text), shown.same).mean()
            losses["matching"] = matching.detach()
            loss = loss + config.matching_weight * matching
        if config.reconstruction_weight > 0:
            redrawing = state.discriminator.redraw_loss(seen, of_real.maps)
            losses["redrawing"] = redrawing.detach()
            loss = loss + config.reconstruction_weight * redrawing
        if with_penalty:
            penalty = _penalty(state, (real, fake), (real_logits, fake_logits), text)
            losses["penalty"] = penalty.detach()
            # Lazy regularisation: what is paid every k-th step weighs k times. arXiv:1912.04958, B.
            loss = loss + gamma / 2 * config.penalty_interval * penalty
    if config.augment_target is not None:
        losses["signal"] = overfitting_signal(real_logits.detach(), fake_logits.detach(), config.loss)
    return losses | {"total": loss}


def _penalty(
    state: TrainingState, images: tuple[Tensor, Tensor], logits: tuple[Tensor, Tensor], text: Tensor | None
) -> Tensor:
    """The configured gradient penalty, its mean over the batch."""
    config = state.config
    if config.penalty == "wgan_gp":
        real, fake = images
        between = interpolated(real, fake, torch.rand(len(real), device=state.device))
        critique: Critique = state.discriminator(augment(between, config, state.augment_probability))
        return unit_gradient_penalty(between, critique.given(text)).mean()
    penalty = gradient_penalty(images[0], logits[0])
    if config.penalty == "r1_r2":
        penalty = penalty + gradient_penalty(images[1], logits[1])
    return penalty.mean()


def generator_step(
    state: TrainingState, reals: RealBatch | None, texts: Texts | None = None, ranks: Ranks = ALONE
) -> Losses:
    """Move G so that D takes its pictures for real, or for more real than a fresh batch of reals, and for what the
    reals' texts say. Without reals G paints as many pictures."""
    config = state.config
    sums: Losses = {}
    state.generator_optimizer.zero_grad()
    count = ranks.share_of(config.batch_size) if reals is None else len(reals.rows)
    sizes = [min(state.micro_batch, count - start) for start in range(0, count, state.micro_batch)]
    parts = [None] * len(sizes) if reals is None else reals.parts(state.micro_batch)
    with frozen(state.discriminator):
        for part, size in zip(parts, sizes, strict=True):
            total = _generator_loss(state, part, texts, ranks, size)
            torch.autograd.backward(total.pop("total") * (size / count))
            _accumulate(sums, total, size / count)
    means = ranks.average(state.generator_optimizer, sums)
    state.generator_optimizer.step()
    return means


def _generator_loss(
    state: TrainingState, reals: RealBatch | None, texts: Texts | None, ranks: Ranks, size: int
) -> Losses:
    config = state.config
    with autocast(config, state.device):
        shown, text = (None, None) if reals is None else read(state, reals, texts, ranks)
        text = None if text is None else text.detach()  # the text vector is D's to learn
        z = draw_z(state, size, ranks)
    with autocast(config, state.device), ranks.own_chance(state.device):
        fake = state.generator(z, text)
        of_fake: Critique = state.discriminator(augment(fake, config, state.augment_probability))
        fake_logits = of_fake.given(text)
        real_logits = fake_logits.detach()
        if reals is not None and config.loss in REALS_FOR_GENERATOR:
            with torch.no_grad():
                real_logits = state.discriminator(augment(reals.images, config, state.augment_probability)).given(text)
        loss = LOSSES[config.loss].generator(real_logits, fake_logits).mean()
        losses = {"generator": loss.detach()}
        if reals is not None and shown is not None and text is not None:
            loss = loss + config.matching_weight * matching_loss(of_fake.match(text), shown.same).mean()
            loss = loss + config.caption_kl_weight * state.generator.mapping.divergence(text).mean()
            if config.caption_layout_weight > 0:
                layout = (shown.alone * layout_loss(fake, reals.images)).mean()
                losses["layout"] = layout.detach()
                loss = loss + config.caption_layout_weight * layout
    return losses | {"total": loss}


def read(
    state: TrainingState, reals: RealBatch, texts: Texts | None, ranks: Ranks = ALONE
) -> tuple[Shown | None, Tensor | None]:
    """The texts shown with a batch, and their vectors [N, dim]; None, None where the networks know none."""
    if state.generator.text is None:
        return None, None
    if texts is None:
        raise ValueError("The networks know texts; training them takes the texts of the dataset.")
    shown = texts.show(reals.rows, state.config, state.device, ranks)
    return shown, state.generator.text(shown.features)


def draw_z(state: TrainingState, count: int, ranks: Ranks = ALONE) -> Tensor:
    """Latents of this process's pictures, [count, z_dim]: its share of those that one process would have drawn."""
    z = torch.randn(count * ranks.count, state.config.network.z_dim, device=state.device)
    return z[ranks.rank :: ranks.count]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradients for a network's own weights, which saves computing them."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:  # memory may have run out on the way, and the training goes on
        for parameter in learning:
            parameter.requires_grad_(True)


def _accumulate(sums: Losses, losses: Losses, share: float) -> None:
    for name, loss in losses.items():
        sums[name] = sums[name] + loss * share if name in sums else loss * share
