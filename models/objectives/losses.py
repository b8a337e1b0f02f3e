"""Adversarial losses: what D and G each want of D's logits, one value an image or pair, [N].

Both take logits of real pictures and of painted ones. In D's step both are D's to change; in G's step only the painted
ones depend on G, and G is given reals of its own, not those of D's step, so that no pair meets twice.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import softplus


class AdversarialLoss(NamedTuple):
    """discriminator(real, fake) and generator(real, fake) -> [N]."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def bce_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(real) - log(1 - sigmoid(fake)). Goodfellow et al., arXiv:1406.2661, eq. 1."""
    return softplus(-real_logits) + softplus(fake_logits)


def bce_generator(_real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(fake), the form that does not saturate. arXiv:1406.2661, section 3."""
    return softplus(-fake_logits)


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(real - fake), pair by pair. Jolicoeur-Martineau, arXiv:1807.00734; arXiv:2501.05441, eq. 2."""
    return softplus(fake_logits - real_logits)


def relativistic_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(fake - real), pair by pair."""
    return softplus(real_logits - fake_logits)


LOSSES = {
    "bce": AdversarialLoss(bce_discriminator, bce_generator),
    "relativistic": AdversarialLoss(relativistic_discriminator, relativistic_generator),
}
