"""Truncation: w pulled towards its mean, for pictures nearer to the typical."""

import numpy as np
import torch
from torch import Tensor

from models.networks.generator import Generator


def truncate(w: Tensor, w_avg: Tensor, psi: float | Tensor, cutoff: int | None = None) -> Tensor:
    """w_avg + psi * (w - w_avg) in the first `cutoff` layers (None: in all). arXiv:1812.04948, B.

    w: [N, num_ws, w_dim]; w_avg: [w_dim]; psi: one number, or a tensor [N] of one a picture. psi 1 gives w itself.
    """
    weight = torch.as_tensor(psi, dtype=w.dtype, device=w.device).reshape(-1, 1, 1)  # [1 or N, 1, 1]
    truncated = torch.lerp(w_avg.expand_as(w), w, weight)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)


@torch.no_grad()
def estimate_w_avg(generator: Generator, samples: int = 10_000) -> Tensor:
    """The mean of w over `samples` fixed latents, [w_dim]; where w is z, it is zero by definition."""
    if generator.config.mapping_layers == 0:
        return torch.zeros_like(generator.w_avg)
    z = np.random.RandomState(0).randn(samples, generator.z_dim).astype(np.float32)
    w: Tensor = generator.mapping(torch.from_numpy(z).to(generator.w_avg.device))  # [samples, num_ws, w_dim]
    return w[:, 0].mean(dim=0)


def update_w_avg(generator: Generator, samples: int = 10_000) -> None:
    """Set w_avg to match the mapping as it is now: call it after the weights have changed, before a snapshot."""
    generator.w_avg.copy_(estimate_w_avg(generator, samples))
