"""Latents to pictures: uint8 arrays and contact sheets."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.errors import ConfigInvalid
from models.latents.seeds import z_from_seeds
from models.latents.truncation import center, no_text, truncate
from models.networks.generator import Generator
from models.text import build_encoder

GAP = 2  # pixels between the pictures of a contact sheet


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """x [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]."""
    pixels = (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


@torch.inference_mode()
def render(
    generator: Generator,
    seeds: Sequence[int],
    psi: float = 1.0,
    cutoff: int | None = None,
    batch: int = 64,
    prompts: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """The pictures of seeds, uint8 [N, R, R, C], `batch` a forward pass, with G in evaluation mode.

    prompts: a text for each seed, where G knows texts; None: those that the seeds pick. "" is no text.
    """
    if prompts is None and generator.captions:
        prompts = [generator.text_of(seed) for seed in seeds]
    training = generator.training
    generator.eval()
    texts = None if prompts is None else text_vectors(generator, prompts)  # [N, dim]
    silence = no_text(generator)
    pictures = []
    for start in range(0, len(seeds), batch):
        z = torch.from_numpy(z_from_seeds(seeds[start : start + batch], generator.z_dim))
        c = silence if silence is None else silence.expand(len(z), -1)
        if texts is not None:
            c = texts[start : start + batch]
        w = generator.mapping(z.to(generator.w_avg.device), c)
        if psi != 1:
            w = truncate(w, _centers(generator, c), psi, cutoff)
        pictures.append(to_uint8(generator.synthesis(w)))
    generator.train(training)
    return np.concatenate(pictures)


def text_vectors(generator: Generator, texts: Sequence[str]) -> Tensor:
    """What G takes for texts, [N, dim]. Raises EncoderUnavailable, and ConfigInvalid where G knows no texts."""
    if generator.text is None or generator.config.text is None:
        raise ConfigInvalid("This generator was trained without captions and labels; it takes no prompts.")
    features = build_encoder(generator.config.text.encoder).encode(texts)
    with torch.no_grad():
        vectors: Tensor = generator.text(torch.from_numpy(features).to(generator.w_avg.device))
    return vectors


def _centers(generator: Generator, c: Tensor | None) -> Tensor:
    """What truncation pulls each picture towards, [N, 1, w_dim]; w_avg where there are no texts, [w_dim]."""
    if c is None:
        return generator.w_avg
    different, places = torch.unique(c, dim=0, return_inverse=True)
    return torch.stack([center(generator, text[None]) for text in different])[places][:, None]


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
