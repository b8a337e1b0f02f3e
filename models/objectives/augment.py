"""DiffAugment: D sees real and painted pictures through the same random changes, so it cannot learn a small dataset by
heart. Zhao et al., arXiv:2006.10738. Differentiable twice, as R1 and R2 through it need."""

import torch
from torch import Tensor

from models.config import TrainConfig


def augment(images: Tensor, config: TrainConfig) -> Tensor:
    """images [N, C, H, W] in [-1, 1] -> the same shape, every picture changed by its own draw from torch's chance."""
    if "translation" in config.augment:
        images = translate(images, config.translation_fraction, config.augment_fill)
    if "cutout" in config.augment:
        images = cut_out(images, config.cutout_fraction)
    return images


def translate(images: Tensor, fraction: float, fill: float) -> Tensor:
    """Shift each picture by whole pixels, up to a fraction of its side on each axis; the rest becomes `fill`.

    A shift is a product with a 0/1 matrix: exact in float32, and unlike gathering, quick to differentiate twice.
    """
    count, _, height, width = images.shape
    vertical = _shift_matrices(count, height, fraction, images)  # [N, 1, H, H]
    horizontal = _shift_matrices(count, width, fraction, images)  # [N, 1, W, W]
    with torch.autocast(images.device.type, enabled=False):
        return vertical @ (images - fill) @ horizontal.mT + fill


def _shift_matrices(count: int, side: int, fraction: float, like: Tensor) -> Tensor:
    reach = round(side * fraction)
    shifts = torch.randint(-reach, reach + 1, (count, 1, 1, 1), device=like.device)
    places = torch.arange(side, device=like.device)
    return (places[:, None] - shifts == places[None, :]).to(like.dtype)  # row i takes column i - shift


def cut_out(images: Tensor, fraction: float) -> Tensor:
    """Grey out one square in each picture; its centre is anywhere, so it may lie partly outside."""
    count, _, height, width = images.shape
    vertical = _inside(count, height, fraction, images.device).unsqueeze(3)  # [N, 1, H, 1]
    horizontal = _inside(count, width, fraction, images.device).unsqueeze(2)  # [N, 1, 1, W]
    return images * ~(vertical & horizontal)


def _inside(count: int, side: int, fraction: float, device: torch.device) -> Tensor:
    """Which places of an axis the square covers, [N, 1, side]."""
    cut = round(side * fraction)
    first = torch.randint(side + 1, (count, 1, 1), device=device) - cut // 2
    places = torch.arange(side, device=device)
    return (places >= first) & (places < first + cut)
