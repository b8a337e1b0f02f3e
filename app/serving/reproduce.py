"""The same pixels in any batch: which batch sizes agree bit for bit.

CPU and GPU libraries choose their code by the batch size, and with the code the order of a sum, and with that its last
bits; a pixel that lies on the edge between two bytes then flips. What agrees here is measured, not assumed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from app.serving.recipe import Recipe

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BASES = (1, 2, 4)  # pictures in the smallest pass, and so what a lone one may cost where passes of one do not agree


def reproducing_sizes(paint: Callable[[Sequence[Recipe]], Tensor], recipes: Sequence[Recipe]) -> list[int]:
    """Batch sizes, rising and at most len(recipes), that paint a recipe with the same bits in any place of a batch.

    Those that agree with a lone picture; or with a pass of 2 or 4, to which a lone picture is then padded, where that
    lets more pictures share a pass. Every size paints the recipes in another order, so that places are compared too.
    """
    sizes = [size for size in SIZES if size <= len(recipes)]
    largest = sizes[-1]
    order = {size: [(turn + place) % largest for place in range(size)] for turn, size in enumerate(sizes)}
    painted = {size: paint([recipes[index] for index in order[size]]) for size in sizes}
    best = [1]
    for base in (base for base in BASES if base in sizes):
        passes = [paint(recipes[start : start + base]) for start in range(0, largest, base)]
        reference = torch.cat(passes)  # [largest, C, R, R]
        agreeing = [size for size in sizes if size >= base and torch.equal(painted[size], reference[order[size]])]
        if base in agreeing and agreeing[-1] > max(base, best[-1]):
            best = agreeing
        if best[-1] == largest:
            break
    return best
