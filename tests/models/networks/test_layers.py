import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from models.networks.layers import ModulatedNorm, ResizeConv, SkipExcitation, double, halve


def test_a_resize_convolution_is_nearest_resizing_and_then_a_3x3_convolution() -> None:
    layer = ResizeConv(3, 5)
    x = torch.randn(2, 3, 6, 7)
    resized = functional.interpolate(x, scale_factor=2, mode="nearest")
    torch.testing.assert_close(layer(x), functional.conv2d(resized, layer.weight, padding=1))


def test_a_modulated_norm_scales_and_shifts_what_it_normalised_by_w() -> None:
    layer = ModulatedNorm(3, 4, nn.BatchNorm2d(3, affine=False))
    x, w = torch.randn(8, 3, 5, 5) * 7 + 3, torch.randn(8, 4)
    y = layer(x, w)
    flat = x.transpose(0, 1).reshape(3, -1)
    mean, variance = flat.mean(dim=1), flat.var(dim=1, correction=0)
    for picture in range(8):
        for channel in range(3):
            scale = layer.affine.weight[channel] @ w[picture] + layer.affine.bias[channel]
            shift = layer.affine.weight[3 + channel] @ w[picture] + layer.affine.bias[3 + channel]
            normalised = (x[picture, channel] - mean[channel]) / (variance[channel] + 1e-5).sqrt()
            torch.testing.assert_close(y[picture, channel], normalised * (1 + scale) + shift, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_skip_excitation_is_the_papers_gate_computed_pixel_by_pixel(side: int) -> None:
    layer = SkipExcitation(3, 5)
    x, source = torch.randn(2, 5, 6, 6), torch.randn(2, 3, side, side)
    # The paper's 4x4 convolution and 1x1 convolution have these weights.
    kernel = layer.squeeze.weight.detach().numpy().reshape(5, 3, 4, 4)
    pointwise = layer.excite.weight.detach().numpy()
    expected = np.zeros((2, 5, 6, 6))
    cell = side // 4
    for picture in range(2):
        hidden = layer.squeeze.bias.detach().numpy().copy()
        for row in range(4):
            for column in range(4):
                block = source[picture, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].numpy()
                hidden += kernel[:, :, row, column] @ block.mean(axis=(1, 2))
        hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        gate = 1 / (1 + np.exp(-(pointwise @ hidden + layer.excite.bias.detach().numpy())))
        expected[picture] = x[picture].numpy() * gate[:, None, None]
    np.testing.assert_allclose(layer(x, source).detach().numpy(), expected, atol=1e-5)


def upfirdn(image: NDArray[np.float64], up: int, down: int, taps: list[float]) -> NDArray[np.float64]:
    """Zeros between the pixels, zeros around, the filter along both axes by the definition, every `down`-th pixel."""
    side = image.shape[0]
    spaced = np.zeros((side * up, side * up))
    spaced[::up, ::up] = image
    padding = (2, 1) if up == 2 else (1, 1)  # as many outputs as pixels, and the filter in the middle
    padded = np.pad(spaced, (padding, padding))
    kernel = np.outer(taps, taps)
    sides = padded.shape[0] - len(taps) + 1
    filtered = np.array([[(padded[i : i + 4, j : j + 4] * kernel).sum() for j in range(sides)] for i in range(sides)])
    return filtered[::down, ::down]


def test_doubling_and_halving_filter_as_upfirdn_does() -> None:
    x = torch.randn(2, 3, 6, 6)
    for picture in range(2):
        for channel in range(3):
            image = x[picture, channel].double().numpy()
            larger = upfirdn(image, up=2, down=1, taps=[0.25, 0.75, 0.75, 0.25])
            smaller = upfirdn(image, up=1, down=2, taps=[0.125, 0.375, 0.375, 0.125])
            np.testing.assert_allclose(double(x)[picture, channel].numpy(), larger, atol=1e-6)
            np.testing.assert_allclose(halve(x)[picture, channel].numpy(), smaller, atol=1e-6)


def test_doubling_and_halving_leave_an_even_area_as_it_is() -> None:
    x = torch.full((1, 2, 8, 8), 3.0)
    assert torch.equal(double(x)[:, :, 1:-1, 1:-1], torch.full((1, 2, 14, 14), 3.0))
    assert torch.equal(halve(x)[:, :, 1:-1, 1:-1], torch.full((1, 2, 2, 2), 3.0))


def test_doubling_and_halving_keep_the_precision_they_are_given() -> None:
    for precision in (torch.bfloat16, torch.float32, torch.float64):
        x = torch.randn(1, 2, 8, 8, dtype=precision)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert double(x).dtype == halve(x).dtype == precision
