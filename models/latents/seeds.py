"""Seeds: a uint32 names a latent z, here as in every other GAN tool."""

import re
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import SeedsInvalid

SEED_MAX = 2**32 - 1
_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?", re.ASCII)
_own = threading.local()  # `state`: each thread's generator, seeded anew for every latent; to make one takes far longer


def z_from_seeds(seeds: Sequence[int], z_dim: int) -> NDArray[np.float32]:
    """The latents of seeds, [N, z_dim]: row i is RandomState(seeds[i]).randn(z_dim)."""
    for seed in seeds:
        if not 0 <= seed <= SEED_MAX:
            raise SeedsInvalid(f"Seed {seed} is not from 0 to {SEED_MAX}.")
    state = _own.__dict__.setdefault("state", None) or np.random.RandomState(0)
    _own.state = state
    rows = []
    for seed in seeds:
        state.seed(seed)
        rows.append(state.randn(z_dim))
    return np.array(rows, dtype=np.float32).reshape(len(seeds), z_dim)


def parse_seeds(text: str, *, limit: int = 1000) -> list[int]:
    """Seeds of a text such as "0,1,4-6", in its order. Raises SeedsInvalid, also for more than limit of them."""
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise SeedsInvalid(f"{part.strip()!r} is neither a seed nor a range of seeds, as in 0,1,4-6.")
        first = int(match[1])
        last = int(match[2] or first)
        if not first <= last <= SEED_MAX:
            raise SeedsInvalid(f"{part.strip()!r}: seeds rise from 0 to {SEED_MAX}.")
        if len(seeds) + last - first + 1 > limit:
            raise SeedsInvalid(f"More than {limit} seeds.")
        seeds.extend(range(first, last + 1))
    return seeds
