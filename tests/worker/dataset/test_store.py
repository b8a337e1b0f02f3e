"""Arrays that grow, and files that appear whole or not at all."""

from pathlib import Path

import numpy as np
import pytest

from app.core.errors import InvalidRequest
from worker.dataset.store import ArrayWriter, open_images, replacing


@pytest.mark.parametrize("length", [0, 1, 12_345])
def test_an_array_of_any_length_reads_back_as_written(tmp_path: Path, length: int) -> None:
    path = tmp_path / "images.npy"
    expected = np.random.default_rng(0).integers(0, 256, (length, 4, 4, 3), dtype=np.uint8)
    with replacing(path) as file:
        writer = ArrayWriter(file, 4)
        for row, picture in enumerate(expected):
            assert writer.append(picture.tobytes()) == row
        writer.finish()
    images = np.load(path) if length == 0 else open_images(path)  # nothing cannot be mapped
    assert np.array_equal(images, expected)


def test_what_is_mapped_cannot_be_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 8, 8, 3), np.uint8))
    images = open_images(tmp_path / "a.npy")
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 9, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.array([{"a": 1}]),
    ],
)
def test_any_other_array_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InvalidRequest, match=r"a\.npy"):
        open_images(tmp_path / "a.npy")


def test_a_cut_off_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((20, 8, 8, 3), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    for length in (0, 20, len(data) // 2):
        (tmp_path / "a.npy").write_bytes(data[:length])
        with pytest.raises(InvalidRequest):
            open_images(tmp_path / "a.npy")


def test_a_file_that_was_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
