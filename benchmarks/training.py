"""The presets and a peer on the same artwork: the same minutes, the same cores, in one run or in several.

A tenth of the pictures is shown to none of them, so that copying can be told from learning. Prints a row each, and
under them what other real pictures reach in the painted ones' place; writes the figures as JSON, and the contact sheets
side by side. The peer is lightweight_gan from the package index; benchmarks/peer.py says how it is run.

python benchmarks/training.py --minutes 10 --threads 2 --out results
python benchmarks/training.py --presets peer --minutes 10 --threads 2 --out other    # the same, in another process
python benchmarks/training.py --collect results other --out together
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peer import PeerResult, train_apart
from PIL import Image, ImageDraw, ImageFont

from models.metrics.memorisation import split_holdout
from models.metrics.report import Reference
from models.presets import FROM_NOTHING, preset
from models.sampling import contact_sheet, render
from worker.dataset.ingest import ingest
from worker.dataset.store import open_images
from worker.training.loop import Concern, Snapshot, Tick, choose_device, train

ROOT = Path(__file__).resolve().parents[1]
PEER = "peer"
LINE_UP = [*FROM_NOTHING, PEER]
MEASURED_SEEDS = 1_000_000  # first seed of the measured pictures: none that a sheet shows
MEASURED_REALS = 1_000  # a smaller set is halved anew until as many have been compared, and the measures averaged
SHEET_COLUMNS = 8
SHEET_PICTURES = 64
LABEL_PIXELS = 28
TICK_LINES = 20  # printed a training
COLUMNS = {  # of the table: what is printed, and with how many decimals
    **{"minutes": 1, "threads": 0, "kimg": 1, "images_per_second": 1},
    **{"swd": 1, "coverage": 3, "precision": 3, "recall": 3, "memorisation": 3, "copied": 3, "duplicates": 3},
}
MEMORISATION = (
    "memorisation: distance to the nearest picture shown, over that of held-out ones; "
    "copied: share that is nearer than one in a hundred of those."
)


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
            print(f"{self.preset:9} {tick.minutes:5.1f} min {tick.kimg:7.1f} kimg {speed}  {losses}", flush=True)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Keep what it measured; the last one's generator is the trained one."""
        self.growth.append({"minutes": snapshot.minutes, "kimg": snapshot.kimg, **snapshot.metrics})
        self.last = snapshot

    def concern(self, concern: Concern) -> None:
        """Print a warning."""
        print(f"{self.preset:9} {concern.kind}: {concern.message}", flush=True)


class Jury:
    """The real pictures, uint8 [N, R, R, 3], and the measures of painted ones against halves of them."""

    def __init__(self, reals: NDArray[np.uint8]) -> None:
        self.shown, self.held_out = split_holdout(len(reals))
        self._half = len(reals) // 2
        self._references = [
            Reference.of(reals, self.shown, self.held_out, seed=seed, count=self._half)
            for seed in range(max(1, round(MEASURED_REALS / len(reals))))
        ]
        self.wanted = self._half * len(self._references)  # painted pictures

    def measure(self, fakes: NDArray[np.uint8]) -> dict[str, float]:
        """By name, the mean over the halvings, each of which sees other painted pictures."""
        parts = [fakes[index * self._half :] for index in range(len(self._references))]
        found = [reference.measure(part) for reference, part in zip(self._references, parts, strict=True)]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def main() -> None:
    """Train what was asked for, then put all that is in the folders into one table and one picture."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.collect:
        torch.set_num_threads(args.threads)
        train_all(args)
    rows, sheets = collect(args.collect or [args.out])
    print_table(rows)
    (args.out / "training.json").write_text(json.dumps(rows, indent=2) + "\n")
    side_by_side(sheets).save(args.out / "training.png")
    print(f"Wrote {args.out / 'training.json'} and {args.out / 'training.png'}.")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each; default 10")
    parser.add_argument("--presets", nargs="+", choices=LINE_UP, default=["classic", "tiny", "few-shot", PEER])
    parser.add_argument("--archive", type=Path, default=ROOT / "examples" / "emoji.zip")
    parser.add_argument("--pictures", type=int, help="take as many of the archive, by chance; default all")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="of the presets; the peer's is the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--collect", nargs="+", type=Path, metavar="DIR", help="train nothing: join what these hold")
    parser.add_argument("--out", type=Path, required=True, help="folder for rows, sheets, training.json, training.png")
    return parser.parse_args()


def train_all(args: argparse.Namespace) -> None:
    """A row and a sheet in the folder for each of the presets, and a sheet of the real pictures."""
    reals = artwork(args.archive, args.resolution, args.pictures, args.seed)
    jury = Jury(reals)
    contact_sheet(reals[spread(len(reals))], SHEET_COLUMNS).save(args.out / "real.png")
    for name in args.presets:
        row, sheet = train_peer(reals, jury, args) if name == PEER else train_preset(name, reals, jury, args)
        settings = {"archive": args.archive.name, "resolution": args.resolution, "seed": args.seed}
        counts = {"shown": len(jury.shown), "held_out": len(jury.held_out), "measured": jury.wanted}
        row = {"preset": name, "settings": settings | counts, **row}
        (args.out / f"{name}.json").write_text(json.dumps(row, indent=2) + "\n")
        sheet.save(args.out / f"{name}.png")


def artwork(archive: Path, resolution: int, pictures: int | None, seed: int) -> NDArray[np.uint8]:
    """The pictures of a zip as a dataset's preparation leaves them, all or `pictures` of them, uint8 [N, R, R, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        images = np.array(open_images(ingest(archive, Path(folder), resolution=resolution).array_path))
    chosen = np.random.RandomState(seed).permutation(len(images))[:pictures]
    return images[np.sort(chosen)]


def train_preset(
    name: str, reals: NDArray[np.uint8], jury: Jury, args: argparse.Namespace
) -> tuple[dict[str, Any], Image.Image]:
    """Train one preset: its row of the table, and a sheet of its pictures."""
    run = Run(name)
    config = preset(name, args.resolution, max_minutes=args.minutes, seed=args.seed, holdout=False)
    result = train(
        config,
        reals[jury.shown],
        on_tick=run.tick,
        on_snapshot=run.snapshot,
        on_concern=run.concern,
        should_stop=lambda: False,
        device=args.device,
    )
    assert run.last is not None
    generator = run.last.generator
    fakes = render(generator, range(MEASURED_SEEDS, MEASURED_SEEDS + jury.wanted))
    ran = took(result.minutes, result.kimg, device_name(args.device), args.threads)
    row = {**ran, **jury.measure(fakes), "growth": run.growth}
    return row, contact_sheet(render(generator, range(SHEET_PICTURES)), SHEET_COLUMNS)


def train_peer(reals: NDArray[np.uint8], jury: Jury, args: argparse.Namespace) -> tuple[dict[str, Any], Image.Image]:
    """Train the peer: its row by the better of its two generators, and a sheet of that one's pictures."""
    result: PeerResult = train_apart(
        reals[jury.shown],
        args.out / "peer-run",
        minutes=args.minutes,
        threads=args.threads,
        seed=args.seed,
        count=SHEET_PICTURES + jury.wanted,
    )
    drawn = {"as it is": result.plain, "averaged": result.averaged}
    measured = {which: jury.measure(fakes[SHEET_PICTURES:]) for which, fakes in drawn.items()}
    better = min(measured, key=lambda which: measured[which]["swd"])
    ran = took(result.minutes, result.kimg, "cpu", args.threads)
    row = {
        **ran,
        **measured[better],
        "steps": result.steps,
        "generator": better,
        "swd_of_both": {which: measures["swd"] for which, measures in measured.items()},
    }
    return row, contact_sheet(drawn[better][:SHEET_PICTURES], SHEET_COLUMNS)


def took(minutes: float, kimg: float, device: str, threads: int) -> dict[str, Any]:
    """What a training took, and where."""
    speed = kimg * 1000 / (minutes * 60)
    return {"minutes": minutes, "kimg": kimg, "images_per_second": speed, "device": device, "threads": threads}


def device_name(device: str) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name() if choose_device(device).type == "cuda" else "cpu"


def spread(count: int) -> NDArray[np.intp]:
    """Rows of a sheet's worth of pictures, evenly over the set."""
    return np.linspace(0, count - 1, SHEET_PICTURES).astype(np.intp)


def collect(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[str, Image.Image]]:
    """The rows of the folders in the order of the line-up, and their sheets by what to write above them.

    Ends the program where they are not of the same pictures: their figures could not stand side by side.
    """
    rows = {path: json.loads(path.read_text()) for name in LINE_UP for path in _rows_of(name, folders)}
    settings = {json.dumps(row["settings"], sort_keys=True) for row in rows.values()}
    if len(settings) != 1:
        raise SystemExit(f"Rows of one kind of settings can be joined; these folders hold {len(settings)}: {settings}")
    sheets: dict[str, Image.Image] = {"real": Image.open(next(iter(rows)).with_name("real.png"))}
    for path, row in rows.items():
        label = f"{row['preset']}: {row['minutes']:.1f} min, {row['kimg']:.0f} kimg, swd {row['swd']:.1f}"
        sheets[label] = Image.open(path.with_suffix(".png"))
    return list(rows.values()), sheets


def _rows_of(name: str, folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders if (path := folder / f"{name}.json").exists()]


def print_table(rows: list[dict[str, Any]]) -> None:
    """One row a training, and what real pictures reach in the painted ones' place: held-out ones, for memorisation."""
    floors = {name.removesuffix("_floor"): value for name, value in rows[0].items() if name.endswith("_floor")}
    by_definition = {"memorisation": 1.0, "copied": 0.01, "duplicates": 0.01}
    titles = {name: {"images_per_second": "img/s"}.get(name, name) for name in COLUMNS}
    widths = {name: max(7, len(title)) + 2 for name, title in titles.items()}
    print(f"\n{'':12}" + "".join(f"{title:>{widths[name]}}" for name, title in titles.items()))
    for row in [*rows, {"preset": "real", **floors, **by_definition}]:
        cells = "".join(
            f"{'-':>{widths[name]}}" if row.get(name) is None else f"{row[name]:{widths[name]}.{decimals}f}"
            for name, decimals in COLUMNS.items()
        )
        print(f"{row['preset']:12}{cells}")
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in rows[0]["settings"].items())
    if limit := rows[0].get("copied_chance"):
        print(f"{MEMORISATION} Above {limit:.3f} that is not by chance.")
    print(f"On {', '.join(sorted({row['device'] for row in rows}))}; {settings}.")


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
