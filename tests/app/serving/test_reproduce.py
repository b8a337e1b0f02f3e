from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from app.serving.recipe import Recipe
from app.serving.reproduce import reproducing_sizes

MakeRecipe = Callable[..., Recipe]
Paint = Callable[[Sequence[Recipe]], Tensor]


def pictures_of(recipes: Sequence[Recipe]) -> Tensor:
    return torch.tensor([[float(recipe.seed)] * 4 for recipe in recipes])


def off_in(*sizes: int) -> Paint:
    """Paints the right picture, but a last bit apart in batches of these sizes."""
    return lambda recipes: pictures_of(recipes) + 1e-3 * (len(recipes) in sizes)


def off_in_place(place: int, *sizes: int) -> Paint:
    """In batches of these sizes, the picture in one place is a last bit apart."""

    def paint(recipes: Sequence[Recipe]) -> Tensor:
        pictures = pictures_of(recipes)
        if len(recipes) in sizes:
            pictures[place] += 1e-3
        return pictures

    return paint


@pytest.mark.parametrize(
    ("paint", "sizes"),
    [
        (pictures_of, [1, 2, 4, 8, 16, 32]),
        (off_in(8), [1, 2, 4, 16, 32]),
        (off_in(16, 32), [1, 2, 4, 8]),
        (off_in(1), [2, 4, 8, 16, 32]),
        (off_in(1, 2), [4, 8, 16, 32]),
        (off_in(1, 2, 4), [1, 2, 4]),  # no pass of four agrees with a larger one
        (off_in_place(5, 8), [1, 2, 4, 16, 32]),
        (off_in_place(31, 32), [1, 2, 4, 8, 16]),
        (off_in_place(1, 2), [1, 4, 8, 16, 32]),
        (lambda recipes: pictures_of(recipes) + 1e-3 * len(recipes), [1]),
    ],
)
def test_only_sizes_that_agree_bit_for_bit_are_used(make_recipe: MakeRecipe, paint: Paint, sizes: list[int]) -> None:
    assert reproducing_sizes(paint, [make_recipe(seed) for seed in range(32)]) == sizes


def test_no_size_is_larger_than_asked_for(make_recipe: MakeRecipe) -> None:
    assert reproducing_sizes(pictures_of, [make_recipe(seed) for seed in range(12)]) == [1, 2, 4, 8]
