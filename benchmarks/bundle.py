"""Makes the bundled model out of a studio's training: the best checkpoint in float16, its figures, sheet and card.

python benchmarks/bundle.py --data data --model emoji
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sqlalchemy import select

from app.core import catalogue
from app.core.db import Database
from app.core.records import Checkpoint, Dataset
from app.core.settings import Settings
from app.core.storage import Storage
from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.metrics.report import quick_report
from models.sampling import contact_sheet, render
from worker.dataset.store import open_images

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "models" / "pretrained"
LICENSE = "Apache-2.0; trained on Noto Color Emoji, SIL OFL 1.1"
CANDIDATES = 4  # the last checkpoints: earlier ones have not seen enough
COVERAGE_SHARE = 0.8  # of the real-vs-real coverage, which a checkpoint must reach to be the best
CARD = Path(__file__).with_name("model_card.txt")


def main() -> None:
    """Measure the last checkpoints of the model, and bundle the best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", default="emoji")
    arguments = parser.parse_args()
    settings = Settings(data=arguments.data)
    storage = Storage(settings.data / "blobs")
    db = Database(settings.database)
    with db.read() as session:
        rows = catalogue.checkpoints(session, arguments.model)[-CANDIDATES:]
        name = catalogue.find(session, arguments.model).dataset
        dataset = session.scalars(select(Dataset).where(Dataset.name == name, Dataset.status == "ready")).first()
    db.close()
    if dataset is None or dataset.array_sha256 is None:
        raise SystemExit(f"The studio holds no ready dataset named {name!r}.")
    real = np.array(open_images(storage.path(dataset.array_sha256)))
    measured = [(row, measure(storage, row, real)) for row in rows]
    for row, metrics in measured:
        print(f"{row.kimg:8.1f} kimg  {row.sha256[:12]}  " + "  ".join(f"{k} {v:.3f}" for k, v in metrics.items()))
    row, metrics = best(measured)
    print(f"bundled: {row.kimg:.1f} kimg, {row.sha256[:12]}")
    bundle(storage, row, metrics, real)


def measure(storage: Storage, row: Checkpoint, real: np.ndarray) -> dict[str, float]:
    """The report of one checkpoint against as many reals as can have a real-vs-real floor beside them."""
    generator, _meta = load_generator(storage.path(row.sha256))
    return quick_report(real, render(generator, range(1_000_000, 1_000_000 + len(real) // 2)), images=len(real) // 2)


def best(measured: list[tuple[Checkpoint, dict[str, float]]]) -> tuple[Checkpoint, dict[str, float]]:
    """The lowest distance among those that cover enough of the dataset; among all where none does."""
    covering = [entry for entry in measured if entry[1]["coverage"] >= COVERAGE_SHARE * entry[1]["coverage_floor"]]
    return min(covering or measured, key=lambda entry: entry[1]["swd"])


def bundle(storage: Storage, row: Checkpoint, metrics: dict[str, float], real: np.ndarray) -> None:
    """Write the float16 checkpoint, the contact sheet and the card."""
    generator, meta = load_generator(storage.path(row.sha256))
    meta = CheckpointMeta.model_validate(meta.model_dump() | {"license": LICENSE, "metrics": metrics})
    OUT.mkdir(exist_ok=True)
    data = save_checkpoint(OUT / "emoji.safetensors", generator, meta, dtype=torch.float16)
    shipped, _meta = load_generator(OUT / "emoji.safetensors")
    sheet: Image.Image = contact_sheet(render(shipped, range(64), psi=0.7), 16)
    (ROOT / "docs" / "images").mkdir(exist_ok=True)
    sheet.save(ROOT / "docs" / "images" / "emoji.png", optimize=True)
    shown = {key: metrics[key] for key in ("swd", "swd_floor", "coverage", "coverage_floor", "precision", "recall")}
    card = CARD.read_text().format(
        name=row.model_name,
        resolution=meta.config.network.resolution,
        count=len(real),
        preset=meta.config.preset,
        seed=meta.config.seed,
        kimg=meta.kimg,
        minutes=meta.minutes,
        megabytes=len(data) / 1e6,
        measured=len(real) // 2,
        **shown,
    )
    (OUT / "README.md").write_text(card)


if __name__ == "__main__":
    main()
