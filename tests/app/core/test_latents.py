"""Stored latents are plain numbers, and nothing that is not listed is read as one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.core import latents
from app.core.db import Database
from app.core.errors import NotFound
from app.core.storage import Storage


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


def numbers(seed: int = 0) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.random.RandomState(seed).randn(5, 16).astype(np.float32)


def test_a_latent_comes_back_bit_for_bit_and_only_in_its_own_shape(storage: Storage) -> None:
    sha256 = latents.store(storage, numbers())
    found = latents.read(storage.get(sha256), 5, 16)
    assert found is not None
    assert np.array_equal(found, numbers())
    assert latents.read(storage.get(sha256), 4, 16) is None


@pytest.mark.parametrize("wrong", [numbers()[0], numbers() * np.inf], ids=["flat", "infinite"])
def test_what_is_no_latent_is_not_stored(
    storage: Storage, wrong: "np.ndarray[tuple[int], np.dtype[np.float32]]"
) -> None:
    with pytest.raises(ValueError, match="finite"):
        latents.store(storage, wrong)


def test_only_listed_latents_can_be_named(db: Database, storage: Storage) -> None:
    listed, unlisted = latents.store(storage, numbers(0)), latents.store(storage, numbers(1))
    with db.begin() as session:
        latents.keep(session, storage, listed, (5, 16), "job_1")
        latents.keep(session, storage, listed, (5, 16), "job_2")
    with db.read() as session:
        latents.require(session, [listed])
        latents.require(session, [])
        with pytest.raises(NotFound, match=unlisted[:12]):
            latents.require(session, [listed, unlisted])
