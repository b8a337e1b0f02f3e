"""Stored latents: each a w, or a step in w, as plain numbers; recipes name them by the sha256 of their bytes."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.records import Latent
from app.core.storage import Storage

NUMBERS: Final = np.dtype("<f4")


def store(storage: Storage, latent: NDArray[np.float32]) -> str:
    """Put [num_ws, w_dim] into storage and return its sha256; `keep` names it in the transaction that publishes it."""
    if latent.ndim != 2 or not np.isfinite(latent).all():
        raise ValueError(f"A latent is finite and of two dimensions; this one has the shape {latent.shape}.")
    return storage.put(np.ascontiguousarray(latent, dtype=NUMBERS).tobytes())


def keep(session: Session, storage: Storage, sha256: str, shape: tuple[int, int], job_id: str | None = None) -> Latent:
    """List a stored latent [num_ws, w_dim], so that recipes may name it; one that is listed already stays as it is."""
    storage.require(sha256)
    row = session.get(Latent, sha256)
    if row is None:
        row = Latent(sha256=sha256, num_ws=shape[0], w_dim=shape[1], job_id=job_id)
        session.add(row)
        session.flush()
    return row


def require(session: Session, names: Iterable[str], param: str = "recipe") -> None:
    """NotFound unless all of these latents are listed: nothing else in storage is ever read as one."""
    wanted = set(names)
    missing = wanted - set(session.scalars(select(Latent.sha256).where(Latent.sha256.in_(wanted))))
    for sha256 in sorted(missing):
        message = f"No latent here begins with {sha256[:12]}: it was found in another studio, or is no latent."
        raise NotFound(message, code="latent_not_found", param=param)


def read(data: bytes, num_ws: int, w_dim: int) -> NDArray[np.float32] | None:
    """The numbers of a stored latent, [num_ws, w_dim]; None where it is of another model's shape."""
    if len(data) != num_ws * w_dim * NUMBERS.itemsize:
        return None
    return np.frombuffer(data, NUMBERS).astype(np.float32).reshape(num_ws, w_dim)
