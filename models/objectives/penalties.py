"""Gradient penalties: D may not be steep at real pictures (R1) nor at painted ones (R2)."""

import torch
from torch import Tensor


def gradient_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Squared gradient norm per image, [N]. Mescheder et al., arXiv:1801.04406, eq. 9.

    images: [N, C, H, W], requiring gradients, as they were before augmentation; logits: D's answers to them, [N]. Each
    logit must depend on its own image alone, so D must not normalise over the batch. The result can be differentiated.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)  # [N, C, H, W]
    return gradient.square().sum(dim=(1, 2, 3))
