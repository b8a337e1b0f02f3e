"""Truncation: w pulled towards its mean, for pictures nearer to the typical."""

import numpy as np
import torch
from torch import Tensor

from models.networks.generator import Generator

CENTER_SAMPLES = 1_000  # latents; their mean is as far from the true one as 1/30 of a picture's own w


def truncate(w: Tensor, w_avg: Tensor, psi: float | Tensor, cutoff: int | None = None) -> Tensor:
    """w_avg + psi * (w - w_avg) in the first `cutoff` layers (None: in all). arXiv:1812.04948, B.

    w: [N, num_ws, w_dim]; w_avg: [w_dim], or [N, 1, w_dim] of one a picture; psi: one number, or a tensor [N] of one
    a picture. psi 1 gives w itself.
    """
    weight = torch.as_tensor(psi, dtype=w.dtype, device=w.device).reshape(-1, 1, 1)  # [1 or N, 1, 1]
    truncated = torch.lerp(w_avg.expand_as(w), w, weight)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)


def estimate_w_avg(generator: Generator, samples: int = 10_000) -> Tensor:
    """The mean of w over `samples` fixed latents, of no text where G knows texts, [w_dim]; where w is z, zero."""
    if generator.config.mapping_layers == 0:
        return torch.zeros_like(generator.w_avg)
    return center(generator, no_text(generator), samples)


def no_text(generator: Generator) -> Tensor | None:
    """The text vector of a picture that was asked for without words, [1, dim]; None where G knows no texts."""
    if generator.text is None:
        return None
    with torch.no_grad():
        silence: Tensor = generator.text(torch.zeros(1, len(generator.text.weight), device=generator.w_avg.device))
    return silence


@torch.no_grad()
def center(generator: Generator, c: Tensor | None, samples: int = CENTER_SAMPLES) -> Tensor:
    """The mean of w over fixed latents with one text c [1, dim], [w_dim]: what truncation pulls a picture of that text
    towards. The mean over all texts would pull it away from what was asked for.
    """
    z = torch.from_numpy(np.random.RandomState(0).randn(samples, generator.z_dim).astype(np.float32))
    texts = None if c is None else c.expand(samples, -1)
    training = generator.training
    generator.eval()  # a text is its middle, not a draw around it
    w: Tensor = generator.mapping(z.to(generator.w_avg.device), texts)  # [samples, num_ws, w_dim]
    generator.train(training)
    return w[:, 0].mean(dim=0)


def update_w_avg(generator: Generator, samples: int = 10_000) -> None:
    """Set w_avg to match the mapping as it is now: call it after the weights have changed, before a snapshot."""
    with torch.no_grad():
        generator.w_avg.copy_(estimate_w_avg(generator, samples))
