"""Makes the bundled model out of a training's checkpoints: the best one in float16, its figures, sheets and card.

python benchmarks/bundle.py CHECKPOINT.safetensors... [--write]

Every checkpoint, and the model that is bundled now, is measured on the sample artwork with the same seeds. One that is
not better than the bundled model in every measure does not replace it, unless --force says why.
"""

import argparse
import csv
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import MOST_CAPTIONS, CheckpointMeta, load_discriminator, load_generator, save_checkpoint
from models.metrics.best import is_better
from models.metrics.report import Reference
from models.sampling import contact_sheet, render
from worker.dataset.ingest import ingest
from worker.dataset.store import open_images

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "models" / "pretrained"
BUNDLED = OUT / "emoji.safetensors"
ARTWORK = ROOT / "examples" / "emoji.zip"
CARD = Path(__file__).with_name("model_card.txt")
LICENSE = "Apache-2.0; trained on Noto Color Emoji, SIL OFL 1.1"
FIRST_SEED = 1_000_000
HIGHER_IS_BETTER = ("coverage", "precision", "recall")
SHOWN_PROMPTS = (
    *("cat face", "red apple", "smiling face", "dog face", "red heart", "green apple", "sunflower", "automobile"),
    *("angry face", "tiger face", "banana", "soccer ball", "house", "full moon", "police car", "rose"),
)
EACH = 4  # pictures a prompt on the sheet of prompts


def main() -> None:
    """Measure, compare, and write what is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help="replace the bundled model if the best is better")
    parser.add_argument("--force", action="store_true", help="replace it whatever the figures say")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    real, captions = artwork()
    reference = Reference.of(real, np.arange(len(real)), np.arange(0), count=len(real) // 2)
    best: tuple[Path, dict[str, float]] | None = None
    for path in arguments.checkpoints:
        metrics = measure(path, reference, captions)
        show(path.name, metrics)
        if best is None or is_better(metrics, best[1]):
            best = path, metrics
    assert best is not None
    before = measure(BUNDLED, reference, captions)
    show("bundled now", before)
    worse = [name for name in HIGHER_IS_BETTER if best[1][name] <= before[name]]
    worse += ["swd"] if best[1]["swd"] >= before["swd"] else []
    print(f"best: {best[0].name}; " + (f"not better in {', '.join(worse)}" if worse else "better in every measure"))
    if arguments.force or (arguments.write and not worse):
        bundle(best[0], best[1], real, captions)


def artwork() -> tuple[np.ndarray, list[str]]:
    """The sample pictures as a dataset's preparation leaves them, and the captions of its table."""
    with tempfile.TemporaryDirectory() as folder:
        real = np.array(open_images(ingest(ARTWORK, Path(folder), resolution=64).array_path))
    with zipfile.ZipFile(ARTWORK) as archive:
        rows = csv.DictReader(io.StringIO(archive.read("metadata.csv").decode()))
        return real, [row["text"] for row in rows]


def measure(path: Path, reference: Reference, captions: list[str]) -> dict[str, float]:
    """The measures of one checkpoint, told the captions of random pictures where it knows captions."""
    generator, _meta = load_generator(path)
    prompts = None
    if generator.text is not None:
        chosen = np.random.RandomState(0).permutation(len(captions))[: reference.count]
        prompts = [captions[row] for row in chosen]
    seeds = range(FIRST_SEED, FIRST_SEED + reference.count)
    return reference.measure(render(generator, seeds, prompts=prompts))


def show(name: str, metrics: dict[str, float]) -> None:
    """A line of figures."""
    print(f"{name:28}" + "  ".join(f"{key} {value:.3f}" for key, value in metrics.items()), flush=True)


def sampled(captions: list[str]) -> tuple[str, ...]:
    """Captions that seeds pick from, in a random order."""
    different = sorted(set(captions))
    return tuple(different[place] for place in np.random.default_rng(0).permutation(len(different))[:MOST_CAPTIONS])


def bundle(path: Path, metrics: dict[str, float], real: np.ndarray, captions: list[str]) -> None:
    """Write the float16 checkpoint with its D, the sheets and the card."""
    generator, meta = load_generator(path)
    discriminator = load_discriminator(path)
    changes = {"license": LICENSE, "metrics": metrics, "captions": meta.captions or sampled(captions)}
    meta = CheckpointMeta.model_validate(meta.model_dump() | changes)
    data = save_checkpoint(BUNDLED, generator, meta, torch.float16, discriminator)
    shipped, _meta = load_generator(BUNDLED)
    images = ROOT / "docs" / "images"
    seeds = list(range(EACH)) * len(SHOWN_PROMPTS)
    prompts = [prompt for prompt in SHOWN_PROMPTS for _ in range(EACH)]
    contact_sheet(render(shipped, range(64), psi=0.7), 16).save(images / "emoji.png", optimize=True)
    contact_sheet(render(shipped, seeds, psi=0.7, prompts=prompts), 2 * EACH).save(
        images / "prompts.png", optimize=True
    )
    shown = {key: metrics[key] for key in ("swd", "swd_floor", "coverage", "coverage_floor", "precision", "recall")}
    card = CARD.read_text().format(
        count=len(real),
        kimg=meta.kimg,
        minutes=meta.minutes,
        preset=meta.config.preset,
        seed=meta.config.seed,
        resolution=meta.config.network.resolution,
        megabytes=len(data) / 1e6,
        measured=len(real) // 2,
        prompts=", ".join(f'"{prompt}"' for prompt in SHOWN_PROMPTS),
        **shown,
    )
    (OUT / "README.md").write_text(card)
    print(f"wrote {BUNDLED.relative_to(ROOT)}, {len(data) / 1e6:.1f} MB, its card and two sheets")


if __name__ == "__main__":
    main()
