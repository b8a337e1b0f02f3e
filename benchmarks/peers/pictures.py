"""What every peer serves: one seed in, one PNG out, by the very generator and encoder that Ganvas paints with."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.core.settings import load_settings
from app.serving.encode import encode
from app.serving.loader import Loader
from app.serving.recipe import Recipe
from app.serving.runtime import devices, runtime

MODEL = "bench"
LARGEST_BATCH = 32  # Ganvas's own largest; on a CPU a pass of more is split as the loader finds best


class Pictures:
    """A prepared generator and the encoder. threads: of a forward pass; 0 leaves torch's own choice."""

    def __init__(self, checkpoint: Path, threads: int = 0) -> None:
        if threads:
            torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic = True  # as Ganvas does
        self.sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        settings = load_settings()
        (device, *_) = devices(settings.device)
        self.runtime = runtime(device, settings.dtype)
        self.generator = Loader(
            lambda _: checkpoint,
            device=device,
            dtype=self.runtime.dtype,
            budget_bytes=2**40,
            max_batch=LARGEST_BATCH,
        ).get(self.sha256)
        side = self.generator.meta.config.network.resolution
        self.size = (side, side)

    def recipe(self, seed: int) -> Recipe:
        """What a seed alone asks for."""
        return Recipe(model=MODEL, checkpoint=self.sha256, seed=seed, size=self.size, **self.runtime._asdict())

    def paint(self, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """Pixels [N, R, R, C]."""
        return self.generator.render([self.recipe(seed) for seed in seeds])

    def file(self, seed: int, pixels: NDArray[np.uint8]) -> bytes:
        """The PNG of pixels [R, R, C], with the recipe of its seed inside."""
        return encode(pixels, output_format="png", recipe=self.recipe(seed))

    def files(self, seeds: Sequence[int]) -> list[bytes]:
        """Painted and encoded."""
        return [self.file(seed, pixels) for seed, pixels in zip(seeds, self.paint(seeds), strict=True)]
