import numpy as np
import pytest
import torch
from torch import Tensor

from models.metrics.coverage import Neighbourhoods, neighbourhoods


def by_loops(real: Tensor, fake: Tensor) -> Neighbourhoods:
    """The definitions of arXiv:1904.06991 and arXiv:2002.09797, one pair at a time."""
    r, f = real.double().numpy(), fake.double().numpy()

    def radius(points: np.ndarray, index: int, k: int) -> float:
        return sorted(float(np.linalg.norm(points[index] - p)) for p in points)[k]

    def near(point: np.ndarray, others: np.ndarray, k: int) -> int:
        return sum(bool(np.linalg.norm(point - others[i]) < radius(others, i, k)) for i in range(len(others)))

    covered = [any(np.linalg.norm(r[i] - p) < radius(r, i, 5) for p in f) for i in range(len(r))]
    return Neighbourhoods(
        precision=float(np.mean([near(p, r, 3) > 0 for p in f])),
        recall=float(np.mean([near(p, f, 3) > 0 for p in r])),
        density=float(np.mean([near(p, r, 5) for p in f]) / 5),
        coverage=float(np.mean(covered)),
    )


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_all_four_are_what_their_definitions_give_pair_by_pair(shift: float) -> None:
    real, fake = torch.randn(30, 3), torch.randn(24, 3) + shift
    assert neighbourhoods(real, fake) == pytest.approx(by_loops(real, fake))


def test_points_far_away_are_neither_good_nor_varied() -> None:
    assert neighbourhoods(torch.randn(50, 4), torch.randn(50, 4) + 100) == Neighbourhoods(0, 0, 0, 0)


def test_good_pictures_of_one_mode_are_precise_but_cover_only_that() -> None:
    left, right = torch.randn(100, 4), torch.randn(100, 4) + 50
    result = neighbourhoods(torch.cat([left, right]), torch.randn(200, 4))
    assert result.precision > 0.8
    assert 0.4 < result.coverage <= 0.5


def test_the_same_points_cover_themselves() -> None:
    points = torch.randn(60, 8)
    result = neighbourhoods(points, points)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)
