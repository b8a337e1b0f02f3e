import numpy as np
import pytest
import torch

from models.metrics.mmd import squared_mmd


def test_it_is_what_the_definition_gives_pair_by_pair() -> None:
    a, b = torch.randn(9, 4), torch.randn(7, 4) + 1

    def mean(xs: torch.Tensor, ys: torch.Tensor, *, same: bool) -> float:
        kernel = [
            (float(xs[i] @ ys[j]) / 4 + 1) ** 3 for i in range(len(xs)) for j in range(len(ys)) if not (same and i == j)
        ]
        return float(np.mean(kernel))

    expected = mean(a, a, same=True) + mean(b, b, same=True) - 2 * mean(a, b, same=False)
    assert squared_mmd(a, b) == pytest.approx(expected, rel=1e-5)


def test_sets_of_one_kind_are_at_zero_in_the_mean_and_below_it_as_well_as_above() -> None:
    found = np.array([squared_mmd(torch.randn(20, 3), torch.randn(12, 3)) for _ in range(1000)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(1000)
    assert 0.2 < (found < 0).mean() < 0.8


def test_in_one_dimension_it_is_the_weighted_difference_of_three_moments() -> None:
    """E[(xy + 1)^3] = 1 + 3 m1 n1 + 3 m2 n2 + m3 n3; N(0, 1) has the moments 0, 1, 0 and N(1, 1) has 1, 2, 4."""
    found = np.array([squared_mmd(torch.randn(400, 1), torch.randn(400, 1) + 1) for _ in range(200)])
    closed_form = 3 * (1 - 0) ** 2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2
    assert found.mean() == pytest.approx(closed_form, abs=4 * found.std() / np.sqrt(200))
