"""Adversarial losses: what D and G each want of D's logits, one value a logit, in the logits' own shape.

All take logits of real pictures and of painted ones, [N] or [N, L]. In D's step both are D's to change; in G's step
only the painted ones depend on G, and G is given reals of its own, not those of D's step, so that no pair meets twice.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import relu, softplus


class AdversarialLoss(NamedTuple):
    """discriminator(real, fake) and generator(real, fake) -> the shape of the logits."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def bce_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(real) - log(1 - sigmoid(fake)). Goodfellow et al., arXiv:1406.2661, eq. 1."""
    return softplus(-real_logits) + softplus(fake_logits)


def bce_generator(_real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(fake), the form that does not saturate. arXiv:1406.2661, section 3."""
    return softplus(-fake_logits)


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 - real) + max(0, 1 + fake). Lim and Ye, arXiv:1705.02894; Miyato et al., arXiv:1802.05957, eq. 16."""
    return relu(1 - real_logits) + relu(1 + fake_logits)


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(real - fake), pair by pair. Jolicoeur-Martineau, arXiv:1807.00734; arXiv:2501.05441, eq. 2."""
    return softplus(fake_logits - real_logits)


def relativistic_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(fake - real), pair by pair."""
    return softplus(real_logits - fake_logits)


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """fake - real, whose mean is minus the distance, if D is 1-Lipschitz. Arjovsky et al., arXiv:1701.07875, eq. 2."""
    return fake_logits - real_logits


def wasserstein_generator(_real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-fake, without a bound; what G minimises under the hinge too (arXiv:1802.05957, eq. 17)."""
    return -fake_logits


LOSSES = {
    "bce": AdversarialLoss(bce_discriminator, bce_generator),
    "hinge": AdversarialLoss(hinge_discriminator, wasserstein_generator),
    "relativistic": AdversarialLoss(relativistic_discriminator, relativistic_generator),
    "wasserstein": AdversarialLoss(wasserstein_discriminator, wasserstein_generator),
}


def matching_loss(match: Tensor, same: Tensor) -> Tensor:
    """Each picture's own text must fit it better than the other texts of the batch do, [N].

    match: [N, N], how well picture i fits text j, text i being its own. same: bool [N, N], where text j is true of
    picture i as well; always so on the diagonal. The mean of -log sigmoid(own - other) over the others, 0 where there
    are none: the relativistic form of GAN-CLS. Reed et al., arXiv:1605.05396, algorithm 1. D minimises it over real
    pictures, G over its own.
    """
    own = match.diagonal()[:, None]  # [N, 1]
    losses = softplus(match - own).masked_fill(same, 0)  # [N, N]
    others = (~same).sum(dim=1).clamp(min=1)  # [N]
    return losses.sum(dim=1) / others
