"""A generator made ready to paint: what does not depend on w is worked out once, and rows do not mind each other."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.networks.layers import ModulatedNorm, ResizeConv

ROW_BLOCK = 8  # rows of a matrix product are padded to a multiple of this; fewer than 4 take another road through BLAS


class PaddedLinear(nn.Linear):
    """A dense layer whose rows come out the same however many there are: x [N, in] -> [N, out]."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = input.shape[0]
        return super().forward(functional.pad(input, (0, 0, 0, -rows % ROW_BLOCK)))[:rows]


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
        return torch.addcmul((shift - self.mean * slope)[:, :, None, None], x, slope[:, :, None, None])


def prepare(network: nn.Module) -> None:
    """Put quicker layers with the same function in the place of those that have them; the weights become constants."""
    for name, layer in list(network.named_children()):
        ready = READY[type(layer)](layer) if type(layer) in READY else layer
        setattr(network, name, ready)
        prepare(ready)


def _padded(linear: nn.Linear) -> nn.Module:
    padded = PaddedLinear(linear.in_features, linear.out_features, bias=False, device="meta")
    padded.weight, padded.bias = linear.weight, linear.bias
    return padded


def _fused(modulation: ModulatedNorm) -> nn.Module:
    norm = modulation.norm
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return modulation
    return FusedModulation(modulation.affine, norm.running_mean, (norm.running_var + norm.eps).sqrt())


@torch.no_grad()
def _folded(resizing: ResizeConv) -> nn.Module:
    """The one transposed convolution that resizing and convolving amount to, its kernel shown by an impulse."""
    outputs, inputs = resizing.weight.shape[:2]
    impulses = torch.zeros(inputs, inputs, 3, 3, device=resizing.weight.device)
    impulses[range(inputs), range(inputs), 1, 1] = 1
    convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False, device="meta")
    kernel = resizing(impulses)[:, :, 1:5, 1:5].contiguous()  # [in, out, 4, 4]
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    return convolution


READY: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: _padded,
    ModulatedNorm: _fused,
    ResizeConv: _folded,
}
