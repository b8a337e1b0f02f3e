"""`classic` against `tiny` on the sample artwork: the same minutes, the same cores, one after the other.

Prints a row each, and under them what real pictures reach when one half of them is held against the other. Writes the
figures as JSON, and the contact sheets side by side.
"""

import argparse
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from models.metrics.coverage import neighbourhoods
from models.metrics.features import FeatureSpace
from models.metrics.swd import sliced_wasserstein
from models.presets import PRESETS, RESOLUTIONS, preset
from models.sampling import contact_sheet, render
from worker.dataset.ingest import ingest
from worker.dataset.store import open_images
from worker.training.loop import Snapshot, Tick, train

ROOT = Path(__file__).resolve().parents[1]
MEASURED_SEEDS = 1_000_000  # first seed of the measured pictures: none that a sheet shows
SHEET_COLUMNS = 8
SHEET_PICTURES = 64
LABEL_PIXELS = 28
TICK_LINES = 20  # printed a training


@dataclass
class Run:
    """One preset's training, as its callbacks tell it."""

    preset: str
    growth: list[dict[str, Any]] = field(default_factory=list)  # of every snapshot
    last: Snapshot | None = None
    _printed: float = 0.0

    def tick(self, tick: Tick) -> None:
        """Print a line now and then."""
        if tick.progress - self._printed >= 1 / TICK_LINES:
            self._printed = tick.progress
            losses = " ".join(f"{name} {loss:.3f}" for name, loss in tick.losses.items())
            speed = f"{tick.images_per_second:6.1f} img/s"
            print(f"{self.preset:8} {tick.minutes:5.1f} min {tick.kimg:7.1f} kimg {speed}  {losses}", flush=True)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Keep what it measured; the last one's generator is the trained one."""
        self.growth.append({"minutes": snapshot.minutes, "kimg": snapshot.kimg, **snapshot.metrics})
        self.last = snapshot


@dataclass(frozen=True)
class Quality:
    """How near one set of pictures comes to the real ones."""

    swd: float
    swd_levels: dict[int, float]
    coverage: float
    density: float
    precision: float
    recall: float


def main() -> None:
    """Train each preset, then measure, print and write."""
    args = arguments()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    reals = artwork(args.archive, args.resolution)
    rows = []
    sheets = {"real": contact_sheet(reals[spread(len(reals))], SHEET_COLUMNS)}
    for name in args.presets:
        row, sheet = train_one(name, reals, args)
        rows.append(row)
        sheets[f"{name}: {row['minutes']:.1f} min, {row['kimg']:.0f} kimg, swd {row['swd']:.1f}"] = sheet
    floor = asdict(measure(*halves(reals)))
    print_table(rows, floor)
    figures = {"threads": args.threads, "reals": len(reals), "resolution": args.resolution, "rows": rows}
    (args.out / "training.json").write_text(json.dumps(figures | {"real_halves": floor}, indent=2) + "\n")
    side_by_side(sheets).save(args.out / "training.png")
    print(f"Wrote {args.out / 'training.json'} and {args.out / 'training.png'}.")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each; default 10")
    parser.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["classic", "tiny"])
    parser.add_argument("--archive", type=Path, default=ROOT / "examples" / "emoji.zip")
    parser.add_argument("--resolution", type=int, choices=RESOLUTIONS, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for training.json and training.png")
    return parser.parse_args()


def artwork(archive: Path, resolution: int) -> np.ndarray:
    """The pictures of a zip as a dataset's preparation leaves them, uint8 [N, R, R, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        return np.array(open_images(ingest(archive, Path(folder), resolution=resolution).array_path))


def train_one(name: str, reals: np.ndarray, args: argparse.Namespace) -> tuple[dict[str, Any], Image.Image]:
    """Train one preset: its row of the table, and a sheet of its pictures."""
    run = Run(name)
    config = preset(name, args.resolution, max_minutes=args.minutes, seed=args.seed)
    result = train(config, reals, on_tick=run.tick, on_snapshot=run.snapshot, should_stop=lambda: False)
    assert run.last is not None
    generator = run.last.generator
    fakes = render(generator, range(MEASURED_SEEDS, MEASURED_SEEDS + len(reals)))
    row = {
        "preset": name,
        "minutes": result.minutes,
        "kimg": result.kimg,
        "images_per_second": result.kimg * 1000 / (result.minutes * 60),
        **asdict(measure(reals, fakes)),
        "growth": run.growth,
    }
    return row, contact_sheet(render(generator, range(SHEET_PICTURES)), SHEET_COLUMNS)


def measure(reals: np.ndarray, others: np.ndarray) -> Quality:
    """Hold others against reals, as many of each, uint8 [N, R, R, 3]."""
    distance = sliced_wasserstein(reals, others)
    space = FeatureSpace.fit(reals)
    near = neighbourhoods(space.project(reals), space.project(others))
    return Quality(distance.mean, distance.levels, near.coverage, near.density, near.precision, near.recall)


def halves(reals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of equal size."""
    shuffled = reals[np.random.default_rng(0).permutation(len(reals))]
    half = len(reals) // 2
    return shuffled[:half], shuffled[half : 2 * half]


def spread(count: int) -> np.ndarray:
    """Rows of a sheet's worth of pictures, evenly over the set."""
    return np.linspace(0, count - 1, SHEET_PICTURES).astype(int)


def print_table(rows: list[dict[str, Any]], floor: dict[str, Any]) -> None:
    """One row a preset, and the reals' own."""
    levels = list(floor["swd_levels"])
    names = "".join(f"{f'swd {side}px':>10}" for side in levels)
    print(
        f"\n{'':12}{'minutes':>9}{'kimg':>8}{'img/s':>8}{'swd':>8}{names}{'coverage':>10}{'precision':>11}{'recall':>8}"
    )
    for row in [*rows, {"preset": "real halves", **floor}]:
        ran = "".join(
            f"{row[key]:{width}.1f}" if key in row else f"{'-':>{width}}"
            for key, width in (("minutes", 9), ("kimg", 8), ("images_per_second", 8))
        )
        distances = "".join(f"{row['swd_levels'][side]:10.1f}" for side in levels)
        shares = f"{row['coverage']:10.3f}{row['precision']:11.3f}{row['recall']:8.3f}"
        print(f"{row['preset']:12}{ran}{row['swd']:8.1f}{distances}{shares}")


def side_by_side(sheets: dict[str, Image.Image]) -> Image.Image:
    """The sheets in a row, each under its label."""
    width, height = next(iter(sheets.values())).size
    whole = Image.new("RGB", (width * len(sheets), height + LABEL_PIXELS), "white")
    draw = ImageDraw.Draw(whole)
    for column, (label, sheet) in enumerate(sheets.items()):
        draw.text((column * width + 4, 6), label, fill="black", font=ImageFont.load_default(16))
        whole.paste(sheet, (column * width, LABEL_PIXELS))
    return whole


if __name__ == "__main__":
    main()
