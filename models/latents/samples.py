"""Samples of w, as the pictures that a model is asked for have it: for what is measured over many of them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.networks.generator import Generator
from models.sampling import text_vectors

BLOCK = 1024  # latents mapped at once


@torch.no_grad()
def sample_w(generator: Generator, count: int, seed: int = 0, captions: Sequence[str] | None = None) -> Tensor:
    """w of `count` latents, the same in every layer, [count, w_dim]: of RandomState(seed).randn(count, z_dim), told the
    texts in turn, as seeds are; captions: None for the generator's own, "" where it has none.

    Equal arguments ask two checkpoints of one training for the same pictures.
    """
    told = list(generator.captions if captions is None else captions) or [""]
    device = generator.w_avg.device
    training = generator.training
    generator.eval()  # a text is its middle, not a draw around it
    texts = None if generator.text is None else text_vectors(generator, told)  # [captions, dim]
    z = np.random.RandomState(seed).randn(count, generator.z_dim).astype(np.float32)
    blocks = []
    for start in range(0, count, BLOCK):
        block = torch.from_numpy(z[start : start + BLOCK]).to(device)
        turns = torch.arange(start, start + len(block), device=device) % len(told)
        blocks.append(generator.mapping(block, None if texts is None else texts[turns])[:, 0])
    generator.train(training)
    return torch.cat(blocks)
