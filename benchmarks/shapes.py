"""Prompts, proved without anybody else's network: a GAN learns coloured shapes by their captions, pixel rules judge it.

Every colour, shape and place is shown, but not every combination: 15% of the captions are held out, and must be painted
from what their words mean elsewhere. Prints how often the colour, the shape and the place are those of the caption, for
captions seen and held out, and for drawings by rule, which say how far the judge can be trusted.

python benchmarks/shapes.py --minutes 10 --threads 1 --out results
"""

import argparse
import itertools
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.config import TextConfig, TrainConfig
from models.networks.generator import Generator
from models.presets import preset
from models.sampling import contact_sheet, render
from models.text import build_encoder
from worker.training.loop import Snapshot, Tick, train
from worker.training.texts import Texts

SIDE = 32  # pixels
FINER = 4  # drawn so many times larger, then averaged, for smooth edges
COLOURS = {
    "red": (214, 38, 44),
    "yellow": (244, 204, 36),
    "green": (40, 158, 72),
    "blue": (38, 92, 214),
    "purple": (146, 52, 178),
    "black": (28, 28, 32),
}
PLACES = {  # the middle of the shape, in parts of the side
    **{"top left": (0.3, 0.3), "top right": (0.7, 0.3), "bottom left": (0.3, 0.7), "bottom right": (0.7, 0.7)},
    "center": (0.5, 0.5),
}
OUTLINES = {  # corners in a square from -1 to 1, y downwards; a circle has none
    "circle": None,
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0.0, -1.0), (1.1, 0.9), (-1.1, 0.9)),
    "cross": tuple(
        (sign_x * x, sign_y * y)
        for sign_x, sign_y, corner in (
            (1, -1, ((0.35, 1.05), (0.35, 0.35), (1.05, 0.35))),
            (1, 1, ((1.05, 0.35), (0.35, 0.35), (0.35, 1.05))),
            (-1, 1, ((0.35, 1.05), (0.35, 0.35), (1.05, 0.35))),
            (-1, -1, ((1.05, 0.35), (0.35, 0.35), (0.35, 1.05))),
        )
        for x, y in corner
    ),
}
RADIUS = (5.0, 7.0)  # pixels, drawn anew for each picture
WOBBLE = 1.2  # pixels off the place
TINT = 14  # of 255, off the colour, each channel

INK = 96  # of 255: a pixel is painted when a channel is this far from white
PAINTED = (20, 300)  # pixels; less is a speck, and more, twice the largest shape, is a stain
ALIKE = 0.6  # overlap with the ideal shape, over union; less is no shape
HELD_OUT_SHARE = 0.15
GOALS = {"seen": {"colour": 0.90, "shape": 0.75}, "held out": {"colour": 0.75, "shape": 0.60}}
PSIS = (1.0, 0.7)
MEASURED_SEEDS = 1_000_000
SHEET_COLUMNS = 16
TICK_LINES = 20


class Combination(NamedTuple):
    """What a caption says."""

    colour: str
    shape: str
    place: str

    @property
    def caption(self) -> str:
        return f"{self.colour} {self.shape} {self.place}"


class Verdict(NamedTuple):
    """What the judge saw; None where it saw nothing that it knows."""

    colour: str | None
    shape: str | None
    place: str | None


def split(seed: int) -> tuple[list[Combination], list[Combination]]:
    """Combinations to show and to hold out, by chance."""
    everything = [Combination(*words) for words in itertools.product(COLOURS, OUTLINES, PLACES)]
    order = np.random.RandomState(seed).permutation(len(everything))
    held = set(order[: round(HELD_OUT_SHARE * len(everything))].tolist())
    return (
        [one for number, one in enumerate(everything) if number not in held],
        [one for number, one in enumerate(everything) if number in held],
    )


def outline(shape: str, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """How much of each pixel a shape of that middle and radius (pixels) covers, [SIDE, SIDE], 0 to 1."""
    canvas = Image.new("L", (SIDE * FINER, SIDE * FINER))
    draw = ImageDraw.Draw(canvas)
    corners = OUTLINES[shape]
    if corners is None:
        draw.ellipse([FINER * edge for edge in (x - radius, y - radius, x + radius, y + radius)], fill=255)
    else:
        draw.polygon([(FINER * (x + a * radius), FINER * (y + b * radius)) for a, b in corners], fill=255)
    fine: NDArray[np.float64] = np.asarray(canvas, dtype=np.float64) / 255
    covered: NDArray[np.float64] = fine.reshape(SIDE, FINER, SIDE, FINER).mean(axis=(1, 3))
    return covered


def drawing(combination: Combination, chance: np.random.RandomState) -> NDArray[np.uint8]:
    """A picture by rule, of a size, place and tint drawn by chance, on white, uint8 [SIDE, SIDE, 3]."""
    x, y = (SIDE * part + chance.uniform(-WOBBLE, WOBBLE) for part in PLACES[combination.place])
    covered = outline(combination.shape, x, y, chance.uniform(*RADIUS))[:, :, None]
    colour = np.clip(np.array(COLOURS[combination.colour]) + chance.uniform(-TINT, TINT, 3), 0, 255)
    return np.round(255 * (1 - covered) + colour * covered).astype(np.uint8)


def judge(picture: NDArray[np.uint8]) -> Verdict:
    """What is painted on uint8 [SIDE, SIDE, 3], by rules on its pixels."""
    painted = 255 - picture.min(axis=2).astype(int) >= INK  # [SIDE, SIDE]
    if not PAINTED[0] <= painted.sum() <= PAINTED[1]:
        return Verdict(None, None, None)
    middle = np.median(picture[painted], axis=0)
    colour = min(COLOURS, key=lambda name: float(np.linalg.norm(middle - COLOURS[name])))
    rows, columns = np.nonzero(painted)
    y, x = rows.mean() + 0.5, columns.mean() + 0.5
    place = min(PLACES, key=lambda name: (x / SIDE - PLACES[name][0]) ** 2 + (y / SIDE - PLACES[name][1]) ** 2)
    return Verdict(colour, judge_shape(painted, x, y), place)


def judge_shape(painted: NDArray[np.bool_], x: float, y: float) -> str | None:
    """The shape with that middle of mass and as many pixels that overlaps best with what is painted."""
    overlaps = {}
    for shape in OUTLINES:
        area, own_x, own_y = weighed(shape)
        radius = (painted.sum() / area) ** 0.5
        ideal = outline(shape, x - own_x * radius, y - own_y * radius, radius) >= 0.5
        overlaps[shape] = float((painted & ideal).sum() / (painted | ideal).sum())
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return best if overlaps[best] >= ALIKE else None


@lru_cache
def weighed(shape: str) -> tuple[float, float, float]:
    """The area and the middle of mass (x, y) of a shape of radius 1 around the origin."""
    half = SIDE / 2
    covered = outline(shape, half, half, half / 2)
    y, x = (float((covered * (axis + 0.5 - half)).sum() / covered.sum()) for axis in np.indices(covered.shape))
    return float(covered.sum()) / (half / 2) ** 2, x / (half / 2), y / (half / 2)


def shares(pictures: NDArray[np.uint8], asked: Sequence[Combination]) -> dict[str, float]:
    """How often each word of what was asked for was found, and all of them."""
    right = np.array(
        [
            [saw == said for saw, said in zip(judge(picture), one, strict=True)]
            for picture, one in zip(pictures, asked, strict=True)
        ]
    )  # bool [N, 3]
    found = dict(zip(Combination._fields, right.mean(axis=0).tolist(), strict=True))
    return found | {"all": float(right.all(axis=1).mean())}


def main() -> None:
    """Draw, train, paint, judge."""
    args = arguments()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    seen, held_out = split(args.seed)
    chance = np.random.RandomState(args.seed)
    shown = [one for one in seen for _ in range(args.drawings)]
    images = np.stack([drawing(one, chance) for one in shown])
    print(f"{len(images)} drawings of {len(seen)} captions; {len(held_out)} captions held out.")
    generator, minutes, kimg = learn(images, [one.caption for one in shown], args)
    asked = {"seen": repeat(seen, args.pictures), "held out": repeat(held_out, args.pictures * 5)}
    rows = {"by rule": {**shares(np.stack([drawing(one, chance) for one in shown[::5]]), shown[::5])}}
    for psi, (which, combinations) in itertools.product(PSIS, asked.items()):
        rows[f"{which}, psi {psi:g}"] = shares(paint(generator, combinations, psi), combinations)
    print_table(rows)
    figures = {"minutes": minutes, "kimg": kimg, "threads": args.threads, "seed": args.seed, "rows": rows}
    (args.out / "shapes.json").write_text(json.dumps(figures, indent=2) + "\n")
    save_sheet(generator, seen, held_out, args.out / "shapes.png")
    print(f"{minutes:.1f} minutes, {kimg:.1f} kimg. Wrote shapes.json and shapes.png in {args.out}.")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training; default 10")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--drawings", type=int, default=25, help="of each caption, to learn from")
    parser.add_argument(
        "--pictures", type=int, default=10, help="to judge, of each caption; 5 times as many if held out"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for shapes.json and shapes.png")
    return parser.parse_args()


def learn(
    images: NDArray[np.uint8], captions: Sequence[str], args: argparse.Namespace
) -> tuple[Generator, float, float]:
    """Train on captioned pictures: the generator, the minutes and the kimg it took."""
    config = configuration(args.preset, args.minutes, args.seed)
    assert config.network.text is not None
    texts = Texts.of(captions, [None] * len(captions), build_encoder(config.network.text.encoder))
    last: list[Snapshot] = []
    printed = 0.0

    def tick(tick: Tick) -> None:
        nonlocal printed
        if tick.progress - printed >= 1 / TICK_LINES:
            printed = tick.progress
            losses = " ".join(f"{name} {loss:.3f}" for name, loss in tick.losses.items())
            print(
                f"{tick.minutes:5.1f} min {tick.kimg:7.1f} kimg {tick.images_per_second:6.1f} img/s  {losses}",
                flush=True,
            )

    result = train(
        config,
        images,
        texts=texts,
        on_tick=tick,
        on_snapshot=lambda snapshot: last.__setitem__(slice(None), [snapshot]),
        should_stop=lambda: False,
        device=args.device,
    )
    return last[0].generator, result.minutes, result.kimg


def configuration(name: str, minutes: float, seed: int) -> TrainConfig:
    """The preset, told to take captions. Mirrored pictures would not be what the words left and right say."""
    return preset(name, SIDE, text=TextConfig(), max_minutes=minutes, seed=seed, mirror=False, holdout=False)


def repeat(combinations: Sequence[Combination], times: int) -> list[Combination]:
    """Each of them so many times."""
    return [one for one in combinations for _ in range(times)]


def paint(generator: Generator, asked: Sequence[Combination], psi: float) -> NDArray[np.uint8]:
    """A picture for each of what is asked for, every one from another seed."""
    seeds = range(MEASURED_SEEDS, MEASURED_SEEDS + len(asked))
    return render(generator, seeds, psi, prompts=[one.caption for one in asked])


def print_table(rows: dict[str, dict[str, float]]) -> None:
    """How often each word was right, and whether that is enough at psi 1."""
    print(f"\n{'':20}{'colour':>9}{'shape':>9}{'place':>9}{'all':>9}")
    for name, row in rows.items():
        print(f"{name:20}" + "".join(f"{row[word]:9.3f}" for word in (*Combination._fields, "all")))
    for which, goals in GOALS.items():
        for word, goal in goals.items():
            reached = rows[f"{which}, psi {PSIS[0]:g}"][word]
            print(f"{which}: {word} {reached:.1%}, wanted {goal:.0%}: {'reached' if reached >= goal else 'missed'}")


def save_sheet(generator: Generator, seen: Sequence[Combination], held_out: Sequence[Combination], path: Path) -> None:
    """Above, a row for every 6th caption seen; below, one for each held out; the first of a row is drawn by rule."""
    chance = np.random.RandomState(0)
    rows = []
    for one in (*seen[::6], *held_out):
        painted = render(generator, range(SHEET_COLUMNS - 1), prompts=[one.caption] * (SHEET_COLUMNS - 1))
        rows.append(np.concatenate([drawing(one, chance)[None], painted]))
    contact_sheet(np.concatenate(rows), SHEET_COLUMNS).save(path)


if __name__ == "__main__":
    main()
