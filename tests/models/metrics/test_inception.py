import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.errors import ModelsError
from models.metrics.inception import inception_distances, weights_path
from models.metrics.mmd import squared_mmd


def pictures(count: int, seed: int, high: int = 256) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, high, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch-fidelity that refuses to be used."""
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ModelsError, match=r"pip install 'ganvas\[metrics\]'"):
        inception_distances(pictures(4, 0), pictures(4, 1))


@pytest.mark.usefixtures("installed")
def test_without_the_weights_it_says_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelsError, match=str(weights_path())):
        inception_distances(pictures(4, 0), pictures(4, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("content", ["a program", "noise", "nothing"])
def test_a_file_that_holds_anything_but_weights_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "weights.pth"
    if content == "a program":
        torch.save({"fc.weight": torch.zeros(1), "run": os.system}, path)
    else:
        path.write_bytes(b"\x00noise" if content == "noise" else b"")
    with pytest.raises(ModelsError, match="something else than weights"):
        inception_distances(pictures(4, 0), pictures(4, 1), path)


def features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Means and deviations of the colours, [N, 6]."""
    pixels = images.reshape(len(images), -1, 3).astype(np.float64) / 255
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1)], axis=1)


@pytest.fixture
def extractor() -> str:
    """The name of a small extractor, registered with the real torch-fidelity."""
    fidelity: Any = pytest.importorskip("torch_fidelity", reason="takes the extra `metrics`")
    name = "colours"

    class Colours(fidelity.FeatureExtractorBase):  # type: ignore[misc]
        """Means and deviations of the colours."""

        def __init__(self, name: str, wanted: list[str], **kwargs: Any) -> None:
            super().__init__(name, wanted)
            del kwargs

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("all",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            del metric
            return "all"

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (torch.from_numpy(features(images.permute(0, 2, 3, 1).numpy())),)

    if name not in fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        fidelity.register_feature_extractor(name, Colours)
    return name


def frechet(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two normal distributions; the root of the product of covariances by that of a symmetric matrix."""
    values, vectors = np.linalg.eigh(np.cov(a, rowvar=False))
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ np.cov(b, rowvar=False) @ root)).sum()
    traces = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    return float(np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + traces - 2 * cross)


def test_kid_and_fid_are_those_of_the_features(tmp_path: Path, extractor: str) -> None:
    weights = tmp_path / "weights.pth"
    torch.save({}, weights)
    few = inception_distances(pictures(40, 0), pictures(40, 1, high=200), weights, extractor=extractor)
    a, b = (torch.from_numpy(features(images)) for images in (pictures(40, 0), pictures(40, 1, high=200)))
    assert few == {"kid": pytest.approx(1e3 * squared_mmd(a, b), rel=1e-5)}
    real, fake = pictures(2048, 2), pictures(2048, 3, high=250)
    many = inception_distances(real, fake, weights, extractor=extractor)
    assert many["fid"] == pytest.approx(frechet(features(real), features(fake)), rel=1e-4)
