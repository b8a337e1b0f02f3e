"""From recipes to pixels: a generator that is ready to paint, and its forward pass.

What a recipe asks for becomes w in blocks of a fixed number of rows, so that a w has the same bits in whatever company
it was calculated: no library ever sees another shape. Only the synthesis runs in batches of several sizes, all of which
were seen to agree (see reproduce.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.core.errors import InvalidRequest
from app.serving.capacity import Capacity, held_bytes
from app.serving.judge import Judge
from app.serving.recipe import Recipe
from app.serving.runtime import Runtime
from app.serving.texts import Meanings, block_rows
from models.checkpoint import CheckpointMeta
from models.latents.seeds import z_from_seeds
from models.networks.generator import Generator


class LoadedGenerator:
    """G of one checkpoint, ready to paint recipes; of the batch sizes it uses, all give the same pixels."""

    def __init__(
        self,
        sha256: str,
        generator: Generator,
        meta: CheckpointMeta,
        runtime: Runtime,
        capacity: Capacity,
        meaning: Meanings | None,
    ) -> None:
        self.sha256 = sha256
        self.generator = generator
        self.meta = meta
        self.runtime = runtime
        self._capacity = capacity
        self.meaning = meaning  # of texts; None where it knows none
        self.judge: Judge | None = None  # read when it is first asked for
        self._held_bytes = held_bytes(generator)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pictures that a pass may paint, rising."""
        return self._capacity.sizes

    @property
    def bytes(self) -> int:
        """What it takes of the device's memory: weights as they were prepared, one pass of its largest batch, the texts
        it remembers, and its judge."""
        texts = 0 if self.meaning is None else self.meaning.bytes
        return self._held_bytes + self._capacity.pass_bytes + texts + (0 if self.judge is None else self.judge.bytes)

    def batch_size(self, waiting: int) -> int:
        """How many of the waiting pictures the next pass should paint."""
        fitting = [size for size in self.sizes if size <= waiting]
        return fitting[-1] if fitting else waiting

    def check(self, recipe: Recipe) -> None:
        """Refuse, with InvalidRequest, a recipe that asks for what this generator has not got."""
        num_ws = self.generator.num_ws
        if recipe.mix is not None and max(recipe.mix.layers) >= num_ws:
            layers = f"layers 0 to {num_ws - 1}" if num_ws > 1 else "layer 0 alone"
            raise InvalidRequest(f"mix asks for layer {max(recipe.mix.layers)}; this model has {layers}.", param="mix")
        if self.meaning is None and recipe.text:
            raise InvalidRequest("These weights know no texts; leave prompt and label out.", param="prompt")

    def render(self, recipes: Sequence[Recipe]) -> NDArray[np.uint8]:
        """The pictures of recipes, uint8 [N, R, R, C], each as it would be alone."""
        pictures = []
        start = 0
        while start < len(recipes):
            size = self.batch_size(len(recipes) - start)
            x = paint(self.generator, recipes[start : start + size], self.meaning, at_least=self.sizes[0])
            pictures.append(_pixels(x)[:size])
            start += size
        return pictures[0] if len(pictures) == 1 else np.concatenate(pictures)


@torch.inference_mode()
def paint(
    generator: Generator, recipes: Sequence[Recipe], meaning: Meanings | None = None, *, at_least: int = 1
) -> Tensor:
    """One forward pass: x [N, C, R, R] in [-1, 1]. meaning: of texts, for a generator that knows them.

    at_least: pictures in the pass; where fewer are asked for, the last one is painted again to make up the number.
    """
    rows = block_rows(generator.w_avg.device)
    blocks = [_latents(generator, recipes[start : start + rows], meaning) for start in range(0, len(recipes), rows)]
    w = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    if len(recipes) < at_least:
        w = torch.cat([w[: len(recipes)], w[len(recipes) - 1, None].expand(at_least - len(recipes), -1, -1)])
    x: Tensor = generator.synthesis(w[: max(len(recipes), at_least)])
    return x


def _latents(generator: Generator, recipes: Sequence[Recipe], meaning: Meanings | None) -> Tensor:
    """w of at most a block of recipes, mixed and truncated, [block, num_ws, w_dim]; the rows behind them mean nothing.

    Truncation pulls a layer of w towards its center: by psi up to the cutoff, and by 1, which leaves it, from there on.
    arXiv:1812.04948, B.
    """
    device = generator.w_avg.device
    rows = block_rows(device)
    c, center = None, generator.w_avg.expand(rows, -1)
    if meaning is not None:
        meant = meaning.of(recipes)
        meant += [meant[-1]] * (rows - len(meant))
        c = torch.cat([text.c for text in meant])  # [block, dim]
        center = torch.stack([text.center for text in meant])  # [block, w_dim]
    w = generator.mapping(_z(generator, [recipe.latent_seed for recipe in recipes], rows), c)
    mixed = [(row, recipe.mix) for row, recipe in enumerate(recipes) if recipe.mix is not None]
    if mixed:
        seeds = [recipe.latent_seed if recipe.mix is None else recipe.mix.seed for recipe in recipes]
        others = generator.mapping(_z(generator, seeds, rows), c)  # told the same
        for row, mix in mixed:
            w[row, list(mix.layers)] = others[row, list(mix.layers)]
    weight = np.ones((rows, generator.num_ws, 1), dtype=np.float32)
    for row, recipe in enumerate(recipes):
        weight[row, : recipe.truncation_cutoff] = recipe.truncation_psi
    return torch.lerp(center[:, None], w, torch.from_numpy(weight).to(device))


def _z(generator: Generator, seeds: Sequence[int], rows: int) -> Tensor:
    """The latents of seeds, and ones behind them, [rows, z_dim]."""
    z = np.ones((rows, generator.z_dim), dtype=np.float32)
    z[: len(seeds)] = z_from_seeds(seeds, generator.z_dim)
    return torch.from_numpy(z).to(generator.w_avg.device)


@torch.inference_mode()
def _pixels(x: Tensor) -> NDArray[np.uint8]:
    """x [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], as models.sampling.to_uint8, and x is used up."""
    pixels = x.mul_(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
