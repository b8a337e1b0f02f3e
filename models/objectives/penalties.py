"""Gradient penalties: how steep D may be at real pictures (R1), at painted ones (R2), or between them (WGAN-GP).

Each takes images [N, C, H, W] that require gradients, as they were before augmentation, and D's logits for them, [N]
or [N, L]. Each logit must depend on its own image alone, so D must not normalise over the batch. The result, [N], can
be differentiated.
"""

import torch
from torch import Tensor


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Squared gradient norm of the mean of an image's logits: R1 and R2. Mescheder et al., arXiv:1801.04406, eq. 9.

    The mean, as the loss is one: of the sum of fifty places a gamma would weigh up to 2,500 times as much.
    """
    return _gradient(images, logits.mean() * len(images)).square().sum(dim=(1, 2, 3))


def unit_gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """(gradient norm - 1)^2, for WGAN-GP. Gulrajani et al., arXiv:1704.00028, eq. 3.

    The gradient is of the mean of an image's logits, since that is the critic whose expectations the loss compares.
    """
    gradient = _gradient(images, logits.mean() * len(images))
    # Where D is flat the norm has a kink; vector_norm's slope there is 0, a square root's would be NaN.
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=(1, 2, 3))
    return (norm - 1).square()


def interpolated(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Where WGAN-GP looks: mix * real + (1 - mix) * fake, a leaf that requires gradients.

    real and fake: [N, C, H, W]; mix: [N], from U(0, 1). arXiv:1704.00028, algorithm 1.
    """
    share = mix[:, None, None, None]
    return (share * real + (1 - share) * fake).detach().requires_grad_()


def _gradient(images: Tensor, total: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)  # [N, C, H, W]
    return gradient
