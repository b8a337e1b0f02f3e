"""A generator made ready to paint: what does not depend on w is worked out once, and rows do not mind each other.

Convolutions are calculated in the runtime's dtype; w, the styles made of it and the last step to pixels in float32.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.networks import dcgan, fastgan
from models.networks.layers import LEAK, ModulatedNorm, ResizeConv, SkipExcitation

ROW_BLOCK = 8  # rows of a matrix product are padded to a multiple of this; fewer than 4 take another road through BLAS
SMALL_SIDE = 8  # pixels of features that are padded to an even number of pictures


class PaddedLinear(nn.Linear):
    """A dense layer whose rows come out the same however many there are: x [N, in] -> [N, out]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = input.shape[0]
        padded = functional.pad(input.to(self.weight.dtype), (0, 0, 0, -rows % ROW_BLOCK))
        return super().forward(padded)[:rows]


class FusedModulation(nn.Module):
    """Batch normalisation by known statistics and modulation by w, in one pass over the features."""

    def __init__(self, affine: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.affine = affine
        self.mean = nn.Buffer(mean)  # [C]
        self.std = nn.Buffer(std)  # [C]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, C, S, S], w [N, w_dim] -> (1 + scale(w)) * (x - mean) / std + shift(w)."""
        scale, shift = self.affine(w).chunk(2, dim=1)  # [N, C] each
        slope = (1 + scale) / self.std
        offset = torch.addcmul(shift, self.mean, slope, value=-1)
        return torch.addcmul(offset.to(x.dtype)[:, :, None, None], x, slope.to(x.dtype)[:, :, None, None])


class Dense4x4(nn.Module):
    """A transposed convolution of one pixel to 4x4, as the dense layer it is: x [N, in, 1, 1] -> [N, out, 4, 4]."""

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        kernel, bias = convolution.weight, convolution.bias  # [in, out, 4, 4], [out] or None
        self.outputs = kernel.shape[1]
        self.linear = PaddedLinear(kernel.shape[0], 16 * self.outputs, bias=False, device="meta")
        self.linear.weight = nn.Parameter(kernel.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), requires_grad=False)
        if bias is not None:
            self.linear.bias = nn.Parameter(bias.detach().repeat(16), requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """[16 * out, in], the channels innermost."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.linear(x.flatten(1))
        return rows.view(-1, 4, 4, self.outputs).permute(0, 3, 1, 2)  # channels_last


class PaddedConvolution(nn.Conv2d):
    """A 3x3 convolution that sees small features of an even number of pictures: those of one alone take another road
    through oneDNN in float32, which adds in another order. Small ones are a small part of what a picture costs."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if input.shape[-1] > SMALL_SIDE or input.is_cuda:
            return super().forward(input)
        rows = input.shape[0]
        return super().forward(functional.pad(input, (0, 0, 0, 0, 0, 0, 0, -rows % 2)))[:rows]


class PaddedExcitation(nn.Module):
    """SkipExcitation whose gates come out the same however many rows there are: a sigmoid calculates the last few
    numbers of a tensor by other code than those before, and 16 of one row are the last few."""

    def __init__(self, excitation: SkipExcitation) -> None:
        super().__init__()
        self.squeeze = excitation.squeeze
        self.excite = excitation.excite

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """x [N, C, S, S], source [N, source_channels, T, T] -> [N, C, S, S]; T is a multiple of 4."""
        pooled = functional.avg_pool2d(source, source.shape[-1] // 4).flatten(1)
        rows = pooled.shape[0]
        padded = functional.pad(pooled, (0, 0, 0, -rows % ROW_BLOCK))
        gate = torch.sigmoid(self.excite(functional.leaky_relu(self.squeeze(padded), LEAK)))[:rows]  # [N, C]
        return x * gate.to(x.dtype)[:, :, None, None]


def prepare(network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Put quicker layers with the same function in the place of those that have them; the weights become constants.

    dtype: of a generator's convolutions.
    """
    for layer in list(network.modules()):
        if isinstance(layer, dcgan.Synthesis | fastgan.Gated):
            _fold_norms(layer)
    _replace(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a tenth to a fifth faster
    if dtype != torch.float32:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | Dense4x4):
                layer.to(dtype)
                layer.register_forward_pre_hook(_in_its_dtype)


def _replace(network: nn.Module) -> None:
    for name, layer in list(network.named_children()):
        ready = READY[type(layer)](layer) if type(layer) in READY else layer
        setattr(network, name, ready)
        _replace(ready)


def _in_its_dtype(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return tuple(x.to(weight.dtype) for x in inputs)


def _fold_norms(layer: dcgan.Synthesis | fastgan.Gated) -> None:
    """Batch normalisation by known statistics, without modulation, goes into the convolution before it."""
    if layer.modulated:
        return
    if isinstance(layer, fastgan.Gated):
        layer.convolution, layer.norm = _without_norm(layer.convolution, layer.norm)
        return
    layer.start, layer.norms[0] = _without_norm(layer.start, layer.norms[0])
    for stage in range(1, len(layer.norms)):
        layer.upsamples[stage - 1], layer.norms[stage] = _without_norm(layer.upsamples[stage - 1], layer.norms[stage])


def _without_norm(convolution: nn.Module, norm: nn.Module) -> tuple[Any, nn.Module]:
    if not isinstance(norm, nn.BatchNorm2d):
        return convolution, norm
    ready: Any = _folded(convolution) if isinstance(convolution, ResizeConv) else convolution
    fused = fuse_conv_bn_eval(ready, norm, transpose=isinstance(ready, nn.ConvTranspose2d))
    return fused, nn.Identity()


def _padded(linear: nn.Linear) -> nn.Module:
    padded = PaddedLinear(linear.in_features, linear.out_features, bias=False, device="meta")
    padded.weight, padded.bias = linear.weight, linear.bias
    return padded


def _never_alone(convolution: nn.Conv2d) -> nn.Module:
    if convolution.kernel_size != (3, 3) or convolution.stride != (1, 1) or convolution.groups > 1:
        return convolution
    padded = PaddedConvolution(convolution.in_channels, convolution.out_channels, 3, padding=1, device="meta")
    padded.weight, padded.bias = convolution.weight, convolution.bias
    return padded


def _fused(modulation: ModulatedNorm) -> nn.Module:
    norm = modulation.norm
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return modulation
    return FusedModulation(modulation.affine, norm.running_mean, (norm.running_var + norm.eps).sqrt())


def _dense(convolution: nn.ConvTranspose2d) -> nn.Module:
    """Only the first layer of a generator has neither stride nor padding: it sees one pixel."""
    first = convolution.kernel_size == (4, 4) and convolution.stride == (1, 1) and convolution.padding == (0, 0)
    return Dense4x4(convolution) if first else convolution


@torch.no_grad()
def _folded(resizing: ResizeConv) -> nn.Module:
    """The one transposed convolution that resizing and convolving amount to."""
    kernel = resizing.kernel().contiguous()  # [in, out, 4, 4]
    inputs, outputs = kernel.shape[:2]
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False, device="meta")
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    return convolution.eval()


READY: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: _padded,
    nn.Conv2d: _never_alone,
    nn.ConvTranspose2d: _dense,
    ModulatedNorm: _fused,
    SkipExcitation: PaddedExcitation,
    ResizeConv: _folded,
}
