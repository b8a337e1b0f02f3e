import torch
from torch import nn
from torch.nn import functional

from models.networks.layers import ModulatedNorm, ResizeConv


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
