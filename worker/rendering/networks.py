"""Networks as they are stored, to be looked into or blended; and vectors of w as slots of their layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.core.errors import CheckpointInvalid
from app.serving.runtime import devices
from models import errors as models_errors
from models.checkpoint import CheckpointMeta, load_generator
from models.networks.generator import Generator
from worker.rendering.publish import Workplace
from worker.training.share import step_threads

Numbers = NDArray[np.float32]


def read(workshop: Workplace, sha256: str) -> tuple[Generator, CheckpointMeta]:
    """G of a checkpoint in float32 and what it says of itself, to be worked with in as many threads as the settings
    allow. Raises NotFound, CheckpointInvalid."""
    torch.set_num_threads(step_threads(workshop.settings.threads))
    device = devices(workshop.settings.device)[0]
    try:
        return load_generator(workshop.storage.path(sha256), device)
    except models_errors.CheckpointInvalid as error:
        raise CheckpointInvalid(f"Checkpoint {sha256[:12]}: {error}") from error


def in_layers(vector: NDArray[Any], layers: Sequence[int] | None, num_ws: int) -> Numbers:
    """A vector [w_dim] in these layers of w (None: all), and nothing in the others, [num_ws, w_dim]."""
    step = np.zeros((num_ws, len(vector)), dtype=np.float32)
    step[slice(None) if layers is None else list(layers)] = vector
    return step
