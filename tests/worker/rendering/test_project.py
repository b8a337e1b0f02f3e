"""What a projection does apart from its job: a checkpoint and a picture in, w and how alike it is out."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.core.db import Database
from app.core.settings import Settings
from app.core.storage import Storage
from models.checkpoint import load_generator
from models.sampling import render, to_uint8
from worker.rendering import project as projecting
from worker.rendering.project import Found, project_picture

STEPS = 40


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.latents.projection.SEEDS", 400)
    monkeypatch.setattr(projecting, "TELLING_SECONDS", 0.0)


@pytest.fixture
def checkpoint(tmp_path: Path, publish_tiny: Callable[..., str]) -> Path:
    db = Database(Settings(data=tmp_path).database)
    db.migrate()
    storage = Storage(tmp_path / "blobs")
    sha256 = publish_tiny(db, storage, contrast=5.0)
    db.close()
    return storage.path(sha256)


def find(checkpoint: Path, picture: NDArray[np.uint8], **changes: object) -> Found | None:
    told: dict[str, object] = {"on_progress": lambda *_: None, "should_stop": lambda: False, "steps": STEPS}
    return project_picture(checkpoint, picture, **told | changes)  # type: ignore[arg-type]


def test_what_is_found_is_nearer_than_the_best_seed_and_is_measured_as_it_is_painted(checkpoint: Path) -> None:
    generator, _ = load_generator(checkpoint)
    target = render(generator, [4_000_000])[0]
    found = find(checkpoint, target)
    assert found is not None
    assert found.likeness.similarity > found.seed_likeness.similarity
    assert found.likeness.error < 0.5 * found.seed_likeness.error
    with torch.no_grad():
        painted = to_uint8(generator.synthesis(torch.from_numpy(found.w)[None]))[0]
    apart = np.abs(painted.astype(float) - target)
    sizes = [apart_at(painted, target, side) for side in (1, 2, 4, 8)]
    assert sizes[0] == pytest.approx(apart.mean() / 255)
    assert found.likeness.error == pytest.approx(np.mean(sizes), abs=1e-5)
    np.testing.assert_array_equal(found.trajectory[-1], found.w)


def apart_at(a: NDArray[np.uint8], b: NDArray[np.uint8], block: int) -> float:
    """How far the means of blocks are apart."""
    side = a.shape[0] // block
    difference = (a.astype(float) - b).reshape(side, block, side, block, 3).mean(axis=(1, 3))
    return float(np.abs(difference).mean() / 255)


def test_a_seeds_own_picture_is_traced_to_it(checkpoint: Path) -> None:
    target = render(load_generator(checkpoint)[0], [77])[0]
    found = find(checkpoint, target)
    assert found is not None
    assert found.seed == 77
    assert found.seed_likeness.error == 0


def test_progress_rises_from_seeds_to_steps_and_shows_pictures_of_the_search(checkpoint: Path) -> None:
    told: list[tuple[float, str, NDArray[np.uint8] | None]] = []
    find(checkpoint, np.full((32, 32, 3), 200, np.uint8), on_progress=lambda *news: told.append(news))
    shares = [share for share, _, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[0][1:] == ("Looked at 256 of 400 seeds.", None)
    assert told[-1][1] == f"Step {STEPS} of {STEPS}."
    assert told[-1][2] is not None
    assert told[-1][2].shape == (32, 32, 3)


@pytest.mark.parametrize("stops_at", [0, 1, 10])
def test_what_is_stopped_finds_nothing(checkpoint: Path, stops_at: int) -> None:
    asked = count()
    assert find(checkpoint, np.zeros((32, 32, 3), np.uint8), should_stop=lambda: next(asked) == stops_at) is None
    assert next(asked) == stops_at + 1
