"""FID and KID by a network trained on photographs, for those who have it: the extra `metrics` and its weights."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from models.errors import ModelsError

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
EXTRACTOR = "inception-v3-compat"
FEWEST_FOR_FID = 2048  # pictures of each set: as many as features, below which the covariance is singular
KID_SUBSET = 1000
SEED = 0


class Pictures(Dataset[Tensor]):
    """A set of pictures, uint8 [N, H, W, 3 or 1], one at a time as [3, H, W]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._images[index])).permute(2, 0, 1).expand(3, -1, -1)


def weights_path() -> Path:
    """Where torch-fidelity keeps the weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def inception_distances(
    real: NDArray[np.uint8], fake: NDArray[np.uint8], weights: Path | None = None, *, extractor: str = EXTRACTOR
) -> dict[str, float]:
    """KID x 1000, and FID where there are enough pictures, of two sets, uint8 [N, H, W, 3 or 1]; downloads nothing.

    `extractor`: as torch-fidelity has it registered; the weights of any other than the usual one are the caller's to
    trust. Raises ModelsError where it or the weights are missing.
    """
    fidelity = _torch_fidelity()
    path = weights_path() if weights is None else weights
    _require_weights(path, extractor)
    fewest = min(len(real), len(fake))
    enough = fewest >= FEWEST_FOR_FID
    found = fidelity.calculate_metrics(
        input1=Pictures(fake),
        input2=Pictures(real),
        fid=enough,
        kid=True,
        kid_subset_size=min(KID_SUBSET, fewest),
        feature_extractor=extractor,
        feature_extractor_weights_path=str(path),
        cuda=torch.cuda.is_available(),
        cache=False,
        save_cpu_ram=True,  # no processes of its own
        rng_seed=SEED,
        verbose=False,
    )
    kid = {"kid": 1e3 * float(found["kernel_inception_distance_mean"])}
    return kid | ({"fid": float(found["frechet_inception_distance"])} if enough else {})


def _torch_fidelity() -> Any:
    try:
        import torch_fidelity
    except ImportError as error:
        raise ModelsError("FID and KID take the extra `metrics`: pip install 'ganvas[metrics]'.") from error
    except RuntimeError as error:
        raise ModelsError(f"torchvision must come from the same package index as torch does: {error}") from error
    return torch_fidelity


def _require_weights(path: Path, extractor: str) -> None:
    """Raise ModelsError for any file but the one that is known: torch-fidelity runs whatever else a file holds."""
    if not path.is_file():
        raise ModelsError(f"FID and KID take the weights of {SOURCE}{WEIGHTS}: put them at {path}.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if extractor == EXTRACTOR and digest != WEIGHTS_SHA256:
        raise ModelsError(f"{path} holds something else than weights; take it from {SOURCE}{WEIGHTS}.")
