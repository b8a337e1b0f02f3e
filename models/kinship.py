"""How much of their beginning two networks still share: training moves weights little, compared to their first draw."""

import torch
from torch import nn

KIN = 0.2  # unrelated networks are within a few hundredths of 0; 230 kimg of training left 0.76


@torch.no_grad()
def kinship(first: nn.Module, second: nn.Module) -> float:
    """Cosine similarity of the weights of two networks of one shape, each layer counting the same: 1 for the same
    weights, about 0 for those that were drawn independently. Biases, norms and what else is one number a feature map
    are left out, for they begin alike in all networks."""
    others = dict(second.named_parameters())
    shared = [
        torch.nn.functional.cosine_similarity(weight.flatten(), others[name].to(weight).flatten(), dim=0)
        for name, weight in first.named_parameters()
        if weight.ndim > 1
    ]
    return float(torch.stack(shared).mean())
