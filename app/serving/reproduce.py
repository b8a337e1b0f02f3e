"""The same pixels in any batch: which batch sizes agree bit for bit.

CPU and GPU libraries choose their code by the batch size, and with the code the order of a sum, and with that its last
bits; a pixel that lies on the edge between two bytes then flips. What agrees here is measured, not assumed.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from app.serving.recipe import Recipe

SIZES = (*range(1, 17), 20, 24, 28, 32, 48, 64, 96, 128, 192, 256)
BASES = (1, 2, 4)  # pictures in the smallest pass, and so what a lone one may cost where passes of one do not agree
DECIDING = 8  # pictures: larger passes have no say in the smallest one, which must not depend on a setting
DIFFERENT = 8  # pictures that are compared; code that adds in another order changes bits in nearly every one

Paint = Callable[[Sequence[Recipe]], Tensor]


class Comparison:
    """Batch sizes of at most len(recipes), compared by painting.

    `sizes` agree, rising: those up to DECIDING at once, with a lone picture; or with a pass of 2 or 4, to which a lone
    picture is then padded, where that lets more pictures share a pass. `others` goes on with the larger ones. Every
    size paints the recipes in another order, so that places in a batch are compared too.
    """

    def __init__(self, paint: Paint, recipes: Sequence[Recipe]) -> None:
        self._paint = paint
        self._recipes = recipes
        self._compared = [size for size in SIZES if size <= len(recipes)]
        self._different = max(size for size in (*BASES, DIFFERENT) if size <= len(recipes))
        few = {size: paint(self._ordered(size)) for size in self._compared if size <= DECIDING}
        self.sizes, self._reference = [1], self._painted_by(1)
        for base in (base for base in BASES if base in few):
            reference = self._reference if base == 1 else self._painted_by(base)
            agreeing = [size for size in few if size >= base and self._equal(few[size], size, reference)]
            if base in agreeing and agreeing[-1] > max(base, self.sizes[-1]):
                self.sizes, self._reference = agreeing, reference
            if self.sizes[-1] == max(few):
                break

    def others(self) -> Iterator[int]:
        """The larger sizes that agree too, rising; each is found when it is asked for."""
        for size in (size for size in self._compared if size > DECIDING):
            if self._equal(self._paint(self._ordered(size)), size, self._reference):
                yield size

    def _painted_by(self, base: int) -> Tensor:
        """The recipes, painted in passes of `base`, [different, C, R, R]."""
        starts = range(0, self._different, base)
        return torch.cat([self._paint(self._recipes[start : start + base]) for start in starts])

    def _order(self, size: int) -> list[int]:
        turn = self._compared.index(size)
        return [(turn + place) % self._different for place in range(size)]

    def _ordered(self, size: int) -> list[Recipe]:
        return [self._recipes[index] for index in self._order(size)]

    def _equal(self, painted: Tensor, size: int, reference: Tensor) -> bool:
        return torch.equal(painted, reference[self._order(size)])


def reproducing_sizes(paint: Paint, recipes: Sequence[Recipe]) -> list[int]:
    """All batch sizes, rising and at most len(recipes), that paint a recipe with the same bits in any place of a batch:
    pictures of any of them are the same."""
    comparison = Comparison(paint, recipes)
    return [*comparison.sizes, *comparison.others()]
