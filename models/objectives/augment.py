"""DiffAugment: D sees real and painted pictures through the same random changes, so it cannot learn a small dataset by
heart. Zhao et al., arXiv:2006.10738. Differentiable twice, as R1 and R2 through it need.

Each operation changes each picture with a probability, by its own draw, and leaves the others exactly as they are.
As much of torch's chance is used whatever the probability, so that a change of it disturbs no other draw.
"""

import torch
from torch import Tensor

from models.config import TrainConfig


def augment(images: Tensor, config: TrainConfig, probability: float = 1.0) -> Tensor:
    """images [N, C, H, W] in [-1, 1] -> the same shape, through every operation of the config."""
    if "color" in config.augment:
        images = recolour(images, probability)
    if "translation" in config.augment:
        images = translate(images, config.translation_fraction, config.augment_fill, probability)
    if "cutout" in config.augment:
        images = cut_out(images, config.cutout_fraction, probability)
    return images


def recolour(images: Tensor, probability: float = 1.0) -> Tensor:
    """Brightness + U(-0.5, 0.5), then saturation times U(0, 2), then contrast times U(0.5, 1.5), each with its own
    probability. Saturation is the distance from a pixel's grey, contrast that from the picture's mean.

    The three are linear in the picture, its grey and its mean, and are done at once.
    """
    brightness = _strengths(images, -0.5, 0.5, 0.0, probability)
    saturation = _strengths(images, 0.0, 2.0, 1.0, probability)
    contrast = _strengths(images, 0.5, 1.5, 1.0, probability)
    grey = images.mean(dim=1, keepdim=True)  # [N, 1, H, W]
    mean = grey.mean(dim=(2, 3), keepdim=True)  # [N, 1, 1, 1]
    return images * (contrast * saturation) + (
        grey * (contrast * (1 - saturation)) + (mean * (1 - contrast) + brightness)
    )


def translate(images: Tensor, fraction: float, fill: float, probability: float = 1.0) -> Tensor:
    """Shift a picture by whole pixels, up to a fraction of its side on each axis; the rest becomes `fill`.

    A shift is a product with a 0/1 matrix: exact in float32, and unlike gathering, quick to differentiate twice.
    """
    chosen = _chosen(images, probability)
    height, width = images.shape[2:]
    vertical = _shift_matrices(chosen, height, fraction, images)  # [N, 1, H, H]
    horizontal = _shift_matrices(chosen, width, fraction, images)  # [N, 1, W, W]
    shown = vertical.sum(dim=3, keepdim=True) * horizontal.sum(dim=3)[:, :, None, :]  # [N, 1, H, W], 0 or 1
    with torch.autocast(images.device.type, enabled=False):
        return vertical @ images @ horizontal.mT + fill * (1 - shown)


def _shift_matrices(chosen: Tensor, side: int, fraction: float, like: Tensor) -> Tensor:
    reach = round(side * fraction)
    shifts = torch.randint(-reach, reach + 1, chosen.shape, device=like.device) * chosen
    places = torch.arange(side, device=like.device)
    return (places[:, None] - shifts == places[None, :]).to(like.dtype)  # row i takes column i - shift


def cut_out(images: Tensor, fraction: float, probability: float = 1.0) -> Tensor:
    """Grey out one square of a picture; its centre is anywhere, so it may lie partly outside."""
    chosen = _chosen(images, probability)
    count, _, height, width = images.shape
    vertical = _inside(count, height, fraction, images.device).unsqueeze(3)  # [N, 1, H, 1]
    horizontal = _inside(count, width, fraction, images.device).unsqueeze(2)  # [N, 1, 1, W]
    return images * ~(vertical & horizontal & chosen)


def _inside(count: int, side: int, fraction: float, device: torch.device) -> Tensor:
    """Which places of an axis the square covers, [N, 1, side]."""
    cut = round(side * fraction)
    first = torch.randint(side + 1, (count, 1, 1), device=device) - cut // 2
    places = torch.arange(side, device=device)
    return (places >= first) & (places < first + cut)


def _strengths(images: Tensor, low: float, high: float, none: float, probability: float) -> Tensor:
    """One number a picture, [N, 1, 1, 1]: from U(low, high) if the picture is chosen, else `none`."""
    chosen = _chosen(images, probability)
    drawn = low + (high - low) * torch.rand(chosen.shape, dtype=images.dtype, device=images.device)
    return torch.where(chosen, drawn, none)


def _chosen(images: Tensor, probability: float) -> Tensor:
    """Which pictures an operation changes, bool [N, 1, 1, 1]."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < probability
