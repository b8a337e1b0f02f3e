"""A prepared dataset on disk: one uint8 array [N, R, R, 3] to map into memory, and what became of each file sent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import InvalidRequest
from worker.dataset.verdicts import Verdict

CHANNELS = 3


class Item(BaseModel):
    """One file that was sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0, description="Place in the archive.")
    file_name: str = Field(description="What its sender called it.")
    verdict: Verdict
    reason: str = Field(description="A sentence for its sender.")
    fixes: list[str] = []
    position: int | None = Field(None, ge=0, description="Row in the array; null when it was left out.")
    caption: str | None = None
    label: str | None = None
    width: int | None = Field(None, ge=1, description="Pixels, upright, as sent.")
    height: int | None = Field(None, ge=1)


class Manifest(BaseModel):
    """What a dataset is and how each file fared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resolution: int
    channels: int = CHANNELS
    crop: str
    background: str
    sent: int
    kept: int
    counts: dict[Verdict, int]
    captions: int = Field(description="Kept pictures that have a caption.")
    labels: list[str] = Field(description="Labels among the kept pictures, sorted.")
    readiness: str
    warnings: list[str]
    items: list[Item]


class ArrayWriter:
    """Appends pictures to a .npy whose length is not known yet."""

    def __init__(self, file: BinaryIO, resolution: int) -> None:
        self._file = file
        self._resolution = resolution
        self.length = 0
        self._write_header()

    def append(self, pixels: bytes) -> int:
        """Add one picture, uint8 [R, R, 3] as bytes, and return its row."""
        self._file.write(pixels)
        self.length += 1
        return self.length - 1

    def finish(self) -> None:
        """Put the length in the header."""
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads this header so that it keeps its size while the first axis grows
        shape = (self.length, self._resolution, self._resolution, CHANNELS)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, on disk, or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest as JSON, whole or not at all."""
    with replacing(path) as file:
        file.write(manifest.model_dump_json(indent=1).encode())


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`; ValidationError when it is not one."""
    return Manifest.model_validate_json(path.read_bytes())


def open_images(array_path: Path) -> npt.NDArray[np.uint8]:
    """The pictures, uint8 [N, R, R, 3], mapped and read-only; InvalidRequest when the file holds anything else."""
    try:
        images: npt.NDArray[Any] = np.load(array_path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as damage:
        message = f"{array_path.name} is not a dataset's array: {damage}"
        raise InvalidRequest(message, code="dataset_damaged") from damage
    if (
        images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[1] != images.shape[2]
        or images.shape[3] != CHANNELS
    ):
        message = f"{array_path.name} holds {images.dtype} {images.shape}; a dataset is uint8 [N, R, R, {CHANNELS}]."
        raise InvalidRequest(message, code="dataset_damaged")
    return images
