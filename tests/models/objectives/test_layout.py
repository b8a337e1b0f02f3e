import numpy as np
import torch

from models.objectives.layout import GRID, layout_loss


def test_it_is_the_mean_difference_of_the_cells_means() -> None:
    random = np.random.default_rng(0)
    fake, real = random.standard_normal((2, 3, 2, 32, 32))
    expected = []
    for one, other in zip(fake, real, strict=True):
        differences = []
        for channel in range(2):
            for top in range(0, 32, 32 // GRID):
                for left in range(0, 32, 32 // GRID):
                    cell = np.s_[channel, top : top + 32 // GRID, left : left + 32 // GRID]
                    differences.append(abs(one[cell].mean() - other[cell].mean()))
        expected.append(np.mean(differences))
    found = layout_loss(torch.from_numpy(fake), torch.from_numpy(real))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_detail_within_a_cell_costs_nothing_and_another_colour_does() -> None:
    plain = torch.zeros(1, 3, 64, 64)
    stripes = plain.clone()
    stripes[..., ::2], stripes[..., 1::2] = 1.0, -1.0
    assert float(layout_loss(stripes, plain)) == 0
    assert float(layout_loss(plain + 0.5, plain)) == 0.5
