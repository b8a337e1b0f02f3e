"""The bundled emoji model and artwork, imported into an empty studio so that the first run shows pictures."""

from pathlib import Path
from typing import Final

from app.core import catalogue, datasets
from app.core.db import Database
from app.core.storage import Storage
from app.serving.loader import read_meta

ROOT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = ROOT / "models" / "pretrained" / "emoji.safetensors"
ARTWORK: Final = ROOT / "examples" / "emoji.zip"


def import_samples(db: Database, storage: Storage) -> None:
    """Publish the bundled model and queue the preparation of the bundled artwork; what is not bundled is left out."""
    if MODEL.exists():
        _import_model(db, storage)
    if ARTWORK.exists():
        source = storage.put(ARTWORK)
        with db.begin() as session:
            datasets.create(session, name="emoji", source_sha256=source, request={"resolution": 64})


def _import_model(db: Database, storage: Storage) -> None:
    meta = read_meta(MODEL)
    sha256 = storage.put(MODEL)
    model = {
        "name": "emoji",
        **catalogue.row_of(meta.config.network),
        "labels": list(meta.labels),
        "vocabulary": list(meta.vocabulary),
        "dataset": meta.dataset,
        "license": meta.license,
        "owned_by": "ganvas",
    }
    with db.begin() as session:
        catalogue.publish(
            session, model, sha256=sha256, kimg=meta.kimg, bytes_=MODEL.stat().st_size, metrics=dict(meta.metrics)
        )
