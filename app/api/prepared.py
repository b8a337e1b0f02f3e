"""Reads what preparation left of a dataset: its manifest and its array."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from app.api.schemas.datasets import Item, Manifest
from app.core.errors import Conflict, NotFound
from app.core.records import Dataset
from app.core.storage import Storage


def manifest(storage: Storage, dataset: Dataset) -> Manifest:
    """What became of every file; Conflict while that is not known."""
    if dataset.manifest_sha256 is None:
        raise Conflict(
            f"Dataset {dataset.id} is {dataset.status}: its items are listed once its preparation has looked at them.",
            code="dataset_not_ready",
        )
    return _read(storage, dataset.manifest_sha256)


def item(storage: Storage, dataset: Dataset, index: int) -> Item:
    """One file's fate; NotFound for an index that was not sent."""
    items = manifest(storage, dataset).items
    if not 0 <= index < len(items):
        message = f"Dataset {dataset.id} has items 0 to {len(items) - 1}; there is no item {index}."
        raise NotFound(message, code="item_not_found", param="item")
    return items[index]


def thumbnail(storage: Storage, dataset: Dataset, index: int, image_format: str) -> bytes:
    """The prepared picture of an item as a file; NotFound with the reason where the item was left out."""
    entry = item(storage, dataset, index)
    if entry.position is None or dataset.array_sha256 is None:
        message = f"Item {index} has no picture in the dataset: {entry.reason}"
        raise NotFound(message, code="item_left_out", param="item")
    images = np.load(storage.path(dataset.array_sha256), mmap_mode="r", allow_pickle=False)
    file = io.BytesIO()
    Image.fromarray(np.array(images[entry.position])).save(file, image_format, lossless=True)
    return file.getvalue()


@lru_cache(maxsize=8)  # a blob named by its sha256 never changes; pages of one list come in a row
def _read(storage: Storage, sha256: str) -> Manifest:
    return Manifest.model_validate_json(storage.get(sha256))
