import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.latents.likeness import edge_error, error, look, similarity


def reference_ssim(x: NDArray[np.float64], y: NDArray[np.float64], value_range: float) -> float:
    """Wang et al., 2004, eq. 13, of one channel, [S, S], window by window: no shared sums, no shared code."""
    axis = np.arange(11) - 5.0
    weights = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    found = []
    for top in range(len(x) - 10):
        for left in range(len(x) - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
            luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
            found.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return float(np.mean(found))


def test_similarity_is_the_papers_window_by_window() -> None:
    chance = np.random.RandomState(0)
    x = chance.uniform(-1, 1, (3, 2, 24, 24))
    y = np.clip(0.6 * x + chance.normal(0.1, 0.3, x.shape), -1, 1)
    found = similarity(look(torch.from_numpy(x)), look(torch.from_numpy(y)))
    for row in range(3):
        expected = np.mean([reference_ssim(x[row, c], y[row, c], 2.0) for c in range(2)])
        assert float(found[row]) == pytest.approx(expected, abs=1e-9)


def test_equal_pictures_are_alike_and_at_no_distance_even_where_they_are_flat() -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    x[1] = 0.99
    torch.testing.assert_close(similarity(look(x), look(x)), torch.ones(2), atol=1e-4, rtol=0)
    assert torch.equal(error(look(x), look(x)), torch.zeros(2))
    assert torch.equal(edge_error(look(x), look(x)), torch.zeros(2))


def test_black_is_a_whole_range_from_white_at_every_size() -> None:
    black, white = look(-torch.ones(1, 3, 16, 16)), look(torch.ones(1, 3, 16, 16))
    torch.testing.assert_close(error(black, white), torch.ones(1))
    torch.testing.assert_close(edge_error(black, white), torch.zeros(1))


def test_a_difference_without_a_mean_is_seen_at_the_picture_s_own_size_alone() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    checked, grey = look(board.expand(1, 1, 16, 16)), look(torch.zeros(1, 1, 16, 16))
    torch.testing.assert_close(error(checked, grey), torch.tensor([0.5 / 4]))  # of four sizes
    torch.testing.assert_close(edge_error(checked, grey), torch.ones(1))


def test_one_target_is_compared_with_many_pictures_as_with_each() -> None:
    many, one = torch.rand(4, 3, 16, 16), torch.rand(1, 3, 16, 16)
    for measure in (similarity, error, edge_error):
        together = measure(look(many), look(one))
        for row in range(4):
            torch.testing.assert_close(together[row], measure(look(many[row : row + 1]), look(one))[0])
