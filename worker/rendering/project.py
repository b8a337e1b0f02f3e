"""A picture looked for in a checkpoint: what a projection does, apart from the job that asks for it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.checkpoint import load_generator
from models.latents.likeness import error, look, similarity
from models.latents.projection import STEPS, project, sketch
from models.networks.generator import Generator
from models.sampling import to_uint8
from worker.rendering.progress import TELLING_SECONDS

LOOKING_SHARE = 0.4  # of the progress, for looking at seeds; the rest is the search

# Part done from 0 to 1, what to tell, and the best picture so far [R, R, C]; None while seeds are looked at.
OnProgress = Callable[[float, str, NDArray[np.uint8] | None], None]


class Likeness(NamedTuple):
    """How alike a picture is to the target, as whole colours: SSIM, and the multi-scale error from 0 to 1."""

    similarity: float
    error: float


class Found(NamedTuple):
    """What a projection comes to; likeness as float32 paints it."""

    w: NDArray[np.float32]  # [num_ws, w_dim]
    trajectory: NDArray[np.float32]  # [T, num_ws, w_dim]: from near a seed's w to the w that was found
    likeness: Likeness
    seed: int  # whose picture, of those looked at, is the nearest
    seed_likeness: Likeness


def project_picture(
    checkpoint: Path,
    picture: NDArray[np.uint8],
    *,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    device: str | torch.device = "cpu",
    steps: int = STEPS,
    seed: int = 0,
) -> Found | None:
    """The w of a checkpoint whose picture is nearest to `picture` [R, R, C]; None where should_stop() said so.

    on_progress is called every TELLING_SECONDS at most. Raises CheckpointInvalid, and EncoderUnavailable where the
    checkpoint's texts cannot be read here.
    """
    generator, _meta = load_generator(checkpoint, device)
    target = _tensor(picture).to(device)
    teller = _Teller(generator, on_progress)
    sketches = sketch(generator, on_batch=teller.looked, should_stop=should_stop)
    if sketches is None:
        return None
    found = project(
        generator, target, sketches, seed=seed, steps=steps, on_step=teller.stepped, should_stop=should_stop
    )
    if found is None:
        return None
    return Found(
        found.w.cpu().numpy(),
        found.trajectory.cpu().numpy(),
        likeness_of(_paint(generator, found.w), picture),
        found.seed,
        likeness_of(_paint(generator, found.seed_w), picture),
    )


class _Teller:
    """Turns batches and steps into progress, once in a while: each telling is a database write."""

    def __init__(self, generator: Generator, on_progress: OnProgress) -> None:
        self._generator = generator
        self._on_progress = on_progress
        self._told = time.monotonic()

    def looked(self, done: int, total: int) -> None:
        """Called after every batch of seeds."""
        if self._due():
            self._on_progress(LOOKING_SHARE * done / total, f"Looked at {done:,} of {total:,} seeds.", None)

    def stepped(self, step: int, total: int, w: Tensor, _loss: float) -> None:
        """Called after every step of the search."""
        if self._due():
            share = LOOKING_SHARE + (1 - LOOKING_SHARE) * step / total
            self._on_progress(share, f"Step {step} of {total}.", _paint(self._generator, w))

    def _due(self) -> bool:
        due = time.monotonic() - self._told >= TELLING_SECONDS
        if due:
            self._told = time.monotonic()
        return due


@torch.no_grad()
def _paint(generator: Generator, w: Tensor) -> NDArray[np.uint8]:
    """w [num_ws, w_dim] -> its picture, [R, R, C]."""
    picture: NDArray[np.uint8] = to_uint8(generator.synthesis(w[None]))[0]
    return picture


def likeness_of(painted: NDArray[np.uint8], picture: NDArray[np.uint8]) -> Likeness:
    """How alike two pictures [R, R, C] are."""
    seen, goal = look(_tensor(painted)), look(_tensor(picture))
    return Likeness(float(similarity(seen, goal)), float(error(seen, goal)))


def _tensor(picture: NDArray[np.uint8]) -> Tensor:
    """A picture [R, R, C] as networks have it, x [1, C, R, R] in [-1, 1]."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
