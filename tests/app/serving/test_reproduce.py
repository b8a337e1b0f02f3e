from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from app.serving.recipe import Recipe
from app.serving.reproduce import Comparison, reproducing_sizes

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


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer sizes to tell apart."""
    monkeypatch.setattr("app.serving.reproduce.SIZES", (1, 2, 4, 8, 16, 32, 64))


@pytest.mark.usefixtures("doubling")
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
    assert reproducing_sizes(pictures_of, [make_recipe(seed) for seed in range(12)]) == list(range(1, 13))
    assert reproducing_sizes(off_in(7), [make_recipe(seed) for seed in range(22)]) == [*range(1, 7), *range(8, 17), 20]


def test_small_sizes_are_compared_at_once_and_larger_ones_when_asked_for(make_recipe: MakeRecipe) -> None:
    passes: list[int] = []

    def paint(recipes: Sequence[Recipe]) -> Tensor:
        passes.append(len(recipes))
        return pictures_of(recipes)

    comparison = Comparison(paint, [make_recipe(seed) for seed in range(32)])
    assert comparison.sizes == [1, 2, 3, 4, 5, 6, 7, 8]
    assert max(passes) == 8
    assert sum(passes) == 36 + 8  # each size once, and eight pictures alone
    others = comparison.others()
    assert (next(others), max(passes)) == (9, 9)


@pytest.mark.parametrize("largest", [1, 2, 3, 5, 8])
def test_no_pass_of_another_size_is_compared_with(make_recipe: MakeRecipe, largest: int) -> None:
    paint = off_in(1)
    sizes = reproducing_sizes(paint, [make_recipe(seed) for seed in range(largest)])

    assert sizes == ([1] if largest < 3 else list(range(2, largest + 1)))
