import numpy as np
import torch

from models.networks.redrawing import Redrawer, redraw_error, structural_similarity


def test_structural_similarity_is_the_papers_computed_window_by_window() -> None:
    x = torch.rand(2, 3, 12, 12) * 2 - 1
    y = (x + torch.randn_like(x) * 0.3).clamp(-1, 1)
    a, b = x.double().numpy(), y.double().numpy()
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    values = []
    for picture in range(2):
        for channel in range(3):
            for row in range(6):
                for column in range(6):
                    p = a[picture, channel, row : row + 7, column : column + 7].ravel()
                    q = b[picture, channel, row : row + 7, column : column + 7].ravel()
                    covariance = ((p - p.mean()) * (q - q.mean())).mean()
                    means = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
                    values.append(means * (2 * covariance + c2) / (p.var() + q.var() + c2))
    np.testing.assert_allclose(float(structural_similarity(x, y)), np.mean(values), rtol=1e-4)


def test_a_perfect_copy_has_no_error_and_the_negative_much() -> None:
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    assert float(redraw_error(x, x)) == 0.0
    assert float(redraw_error(-x, x)) > 1.3  # L1 of 1, and similarity below 0


def test_the_error_is_measured_in_float32_under_autocast() -> None:
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(redraw_error(x, y), redraw_error(x, y).float())
        inside = redraw_error(x, y)
    assert torch.equal(inside, redraw_error(x, y))


def test_a_decoder_has_a_quarter_of_the_maps_at_first_then_halves_them_down_to_16() -> None:
    decoder = Redrawer(128, 8, 64, 3)
    kernels = 9 * (128 * 2 * 32 + 32 * 2 * 16 + 16 * 2 * 16 + 16 * 3)
    norms = 2 * 2 * (32 + 16 + 16)
    assert sum(p.numel() for p in decoder.parameters()) == kernels + norms + 3
    assert decoder(torch.randn(2, 128, 8, 8)).shape == (2, 3, 64, 64)
