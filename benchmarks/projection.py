"""Does projection find a picture better than looking through 10,000 seeds does?

For 20 pictures that the bundled model was trained on and 20 it never saw, SSIM and multi-scale error of the projection
are set against the best of 10,000 seeds, by each measure its own best. All are compared as the server paints them: psi
1, in its numbers, rounded to whole colours. Exits with 1 unless the projection wins by both measures on every picture.

python benchmarks/projection.py
python benchmarks/projection.py --pictures 3 --sheet /tmp/projection.png
"""

import argparse
import io
import os
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from app.serving.inference import prepare
from app.serving.runtime import TORCH_DTYPES, runtime
from models.checkpoint import load_generator
from models.latents.likeness import Sight, error, look, similarity
from models.latents.projection import SEEDS, STEPS, Projection, Sketches, project, sketch
from models.latents.seeds import z_from_seeds
from models.latents.truncation import no_text
from models.networks.generator import Generator
from models.sampling import contact_sheet, text_vectors, to_uint8

ROOT = Path(__file__).resolve().parents[1]
BATCH = 64  # seeds a pass
CPU = torch.device("cpu")


class Alike(NamedTuple):
    """How alike a picture is to the target: SSIM, and the multi-scale error."""

    similarity: float
    error: float


class Result(NamedTuple):
    """One target, what was found for it, and the best that seeds have, each measure by its own seed."""

    name: str
    found: Alike
    seeds: Alike
    seconds: float
    pictures: NDArray[np.uint8]  # [3, R, R, 3]: the target, the projection, the seed of the least error

    @property
    def won(self) -> bool:
        """By both measures."""
        return self.found.similarity > self.seeds.similarity and self.found.error < self.seeds.error


def main() -> None:
    """Measure, print the table and save the sheet."""
    args = arguments()
    torch.set_num_threads(args.threads)
    generator, _meta = load_generator(args.checkpoint)
    served, _meta = load_generator(args.checkpoint)
    dtype = runtime(CPU, args.dtype).dtype
    prepare(served, TORCH_DTYPES[dtype])
    side = generator.config.resolution
    groups = {name: targets(path, args.pictures, side) for name, path in (("seen", args.seen), ("unseen", args.unseen))}
    goals = [(name, look(to_x(picture[None]))) for group in groups.values() for name, picture in group]
    print(
        f"{args.checkpoint.name}, painted in {dtype}; {len(goals)} pictures, {args.seeds:,} seeds, {args.steps} steps."
    )
    rivals = best_seeds(generator, served, [goal for _, goal in goals], args.seeds)
    started = time.perf_counter()
    sketches = sketch(generator)
    assert sketches is not None
    looking = time.perf_counter() - started
    results = []
    for (name, goal), rival in zip(goals, rivals, strict=True):
        results.append(measure(generator, served, sketches, name, goal, rival, args.steps))
        show(results[-1])
    sizes = [len(group) for group in groups.values()]
    grouped = dict(zip(groups, (results[: sizes[0]], results[sizes[0] :]), strict=True))
    for name, found in grouped.items():
        summarise(name, found)
    print(f"Looking at {len(sketches.pictures):,} seeds, once for all pictures here: {looking:.1f} s.")
    save_sheet(list(grouped.values()), args.sheet)
    raise SystemExit(0 if all(result.won for result in results) else 1)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "pretrained" / "emoji.safetensors")
    parser.add_argument("--seen", type=Path, default=ROOT / "examples" / "emoji.zip", help="zip of training pictures")
    parser.add_argument("--unseen", type=Path, default=ROOT / "examples" / "unseen.zip", help="zip of other pictures")
    parser.add_argument("--pictures", type=int, default=20, help="of each zip, drawn by chance; default 20")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"to beat; default {SEEDS}")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each search; default {STEPS}")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help="as GANVAS_DTYPE")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sheet", type=Path, default=ROOT / "docs" / "images" / "projection.png")
    return parser.parse_args()


def targets(archive: Path, count: int, side: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """Names and pictures [R, R, 3] of a zip, by chance, and always the same."""
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".png"))
        chosen = np.random.RandomState(0).permutation(len(names))[:count]
        pictures = [Image.open(io.BytesIO(files.read(names[place]))).convert("RGB") for place in chosen]
    fitted = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
    return [(names[place], np.asarray(picture)) for place, picture in zip(chosen, fitted, strict=True)]


def to_x(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, R, R, 3] -> x [N, 3, R, R] in [-1, 1]."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def best_seeds(
    generator: Generator, served: Generator, goals: list[Sight], count: int
) -> list[tuple[Alike, NDArray[np.uint8]]]:
    """For each goal the best SSIM and the least error among the first seeds, and the picture of the least error."""
    best = [(Alike(-1.0, float("inf")), np.zeros((), dtype=np.uint8))] * len(goals)
    texts = text_vectors(generator, generator.captions) if generator.captions else no_text(generator)
    for start in range(0, count, BATCH):
        seeds = range(start, min(start + BATCH, count))
        c = None if texts is None else texts[[seed % len(texts) for seed in seeds]]
        w = generator.mapping(torch.from_numpy(z_from_seeds(seeds, generator.z_dim)), c)
        pictures = to_uint8(served.synthesis(w))
        seen = look(to_x(pictures))
        for place, goal in enumerate(goals):
            (alike, picture), errors = best[place], error(seen, goal)
            if float(errors.min()) < alike.error:
                picture = pictures[int(errors.argmin())]
            highest = max(alike.similarity, float(similarity(seen, goal).max()))
            best[place] = Alike(highest, min(alike.error, float(errors.min()))), picture
    return best


def measure(
    generator: Generator,
    served: Generator,
    sketches: Sketches,
    name: str,
    goal: Sight,
    rival: tuple[Alike, NDArray[np.uint8]],
    steps: int,
) -> Result:
    """Search for one goal, and compare what was found with the best of the seeds."""
    target = goal.sizes[0]
    started = time.perf_counter()
    found: Projection | None = project(generator, target, sketches, steps=steps)
    seconds = time.perf_counter() - started
    assert found is not None
    with torch.no_grad():
        picture = to_uint8(served.synthesis(found.w[None]))
    seen = look(to_x(picture))
    alike = Alike(float(similarity(seen, goal)), float(error(seen, goal)))
    return Result(name, alike, rival[0], seconds, np.stack([to_uint8(target)[0], picture[0], rival[1]]))


def show(result: Result) -> None:
    """A line of one picture."""
    ssim = f"SSIM {result.found.similarity:.3f} (seeds {result.seeds.similarity:.3f})"
    far = f"error {result.found.error:.3f} (seeds {result.seeds.error:.3f})"
    verdict = "" if result.won else "  LOST"
    print(f"{result.name[:28]:28}  {ssim}  {far}  {result.seconds:5.1f} s{verdict}", flush=True)


def summarise(group: str, results: list[Result]) -> None:
    """Lines of one group: means, and the picture on which the projection is the least ahead."""
    found, seeds = np.array([result.found for result in results]), np.array([result.seeds for result in results])
    lost = (1 - found[:, 0]) / (1 - seeds[:, 0]), found[:, 1] / seeds[:, 1]  # of likeness, as a part of what seeds lose
    for column, (measure_name, ratios) in enumerate(zip(("1 - SSIM", "error"), lost, strict=True)):
        means = found[:, column].mean(), seeds[:, column].mean()
        print(
            f"{group:6}  {Alike._fields[column]:10}  projected {means[0]:.3f}  best of seeds {means[1]:.3f}  "
            f"{measure_name} at most {ratios.max():.2f} of theirs  wins {(ratios < 1).sum()} of {len(results)}"
        )
    print(f"{group:6}  {np.mean([result.seconds for result in results]):.1f} s a picture")


def save_sheet(groups: list[list[Result]], path: Path) -> None:
    """Of each group a row of targets, one of projections and one of seeds."""
    rows = [np.stack([result.pictures[row] for result in group]) for group in groups for row in range(3)]
    contact_sheet(np.concatenate(rows), len(groups[0])).save(path, optimize=True)
    print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
