"""Latents to pictures: uint8 arrays and contact sheets."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.latents.seeds import z_from_seeds
from models.latents.truncation import truncate
from models.networks.generator import Generator

GAP = 2  # pixels between the pictures of a contact sheet


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """x [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]."""
    pixels = (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.inference_mode()
def render(
    generator: Generator, seeds: Sequence[int], psi: float = 1.0, cutoff: int | None = None, batch: int = 64
) -> NDArray[np.uint8]:
    """The pictures of seeds, uint8 [N, R, R, C], `batch` a forward pass, with G in evaluation mode."""
    training = generator.training
    generator.eval()
    pictures = []
    for start in range(0, len(seeds), batch):
        z = torch.from_numpy(z_from_seeds(seeds[start : start + batch], generator.z_dim))
        w = generator.mapping(z.to(generator.w_avg.device))
        pictures.append(to_uint8(generator.synthesis(truncate(w, generator.w_avg, psi, cutoff))))
    generator.train(training)
    return np.concatenate(pictures)


def contact_sheet(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """Pictures uint8 [N, H, W, C], C 1 or 3, in rows of `columns`, on white."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet[:, :, 0] if channels == 1 else sheet)
