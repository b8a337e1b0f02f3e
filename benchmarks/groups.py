"""Is a prompt understood? For captions of the emoji set: is the picture nearest to a real one of the caption's group?

Groups are the labels of the set's own table: face, animal, food and so on. Nearest is by the features that all of
Ganvas's measures use. Prints the share, beside it what pictures drawn by chance would reach, and what real pictures do
whose nearest other real one is looked for: the features know nothing of meaning, so these are not always of one group.

python benchmarks/groups.py --checkpoint models/pretrained/emoji.safetensors
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoint import load_generator
from models.metrics.features import FeatureSpace
from models.metrics.memorisation import nearest, nearest_of_others
from models.networks.generator import Generator
from models.sampling import contact_sheet, render
from worker.dataset.ingest import ingest
from worker.dataset.store import open_images, read_manifest

ROOT = Path(__file__).resolve().parents[1]
WANTED = 0.70
SHEET_COLUMNS = 20


class Artwork(NamedTuple):
    """Real pictures, uint8 [N, R, R, 3], and the caption and the group of each."""

    images: NDArray[np.uint8]
    captions: tuple[str, ...]
    groups: NDArray[np.str_]  # [N]


def main() -> None:
    """Paint captions chosen by chance, and look up the group of each one's nearest real picture."""
    args = arguments()
    torch.set_num_threads(args.threads)
    generator, meta = load_generator(args.checkpoint)
    if generator.text is None:
        raise SystemExit(f"{args.checkpoint} was trained without captions; it takes no prompts.")
    art = artwork(args.archive, generator.config.resolution)
    chosen = np.random.RandomState(args.seed).permutation(len(art.images))[: args.captions]
    asked = np.repeat(chosen, args.each)
    space = FeatureSpace.fit(art.images)
    points = space.project(art.images)
    painted = paint(generator, [art.captions[row] for row in asked], args.psi)
    rows = nearest(space.project(painted), points).rows
    found = art.groups[rows]
    print(f"{args.checkpoint}: {meta.kimg:.0f} kimg; {len(chosen)} captions, {args.each} each, psi {args.psi:g}.")
    print_groups(art.groups[asked], found)
    own = float((found == art.groups[asked]).mean())
    real = float((art.groups[nearest_of_others(points).rows] == art.groups)[chosen].mean())
    print(f"Nearest to a picture of its own group: {own:.3f}, wanted {WANTED:.2f}.")
    print(f"Nearest to the very picture that has the caption: {(rows == asked).mean():.3f}.")
    print(f"By chance: {by_chance(art.groups, chosen):.3f}. Real pictures, to their nearest other: {real:.3f}.")
    if args.sheet is not None:
        save_sheet(art, asked, painted, args.sheet)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "models" / "pretrained" / "emoji.safetensors")
    parser.add_argument("--archive", type=Path, default=ROOT / "examples" / "emoji.zip")
    parser.add_argument("--captions", type=int, default=100)
    parser.add_argument("--each", type=int, default=1, help="pictures of a caption, of as many seeds")
    parser.add_argument("--psi", type=float, default=0.7, help="truncation; default 0.7, as served")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of captions")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sheet", type=Path, help="PNG: each caption's real picture above the painted one")
    return parser.parse_args()


def artwork(archive: Path, resolution: int) -> Artwork:
    """The pictures of a zip as a dataset's preparation leaves them."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = ingest(archive, Path(folder), resolution=resolution)
        images = np.array(open_images(prepared.array_path))
        items = {item.position: item for item in read_manifest(prepared.manifest_path).items}
    rows = [items[position] for position in range(len(images))]
    return Artwork(images, tuple(row.caption or "" for row in rows), np.array([row.label or "" for row in rows]))


def paint(generator: Generator, captions: Sequence[str], psi: float) -> NDArray[np.uint8]:
    """A picture of each caption, from seed 0 on."""
    return render(generator, range(len(captions)), psi, prompts=captions)


def by_chance(groups: NDArray[np.str_], chosen: NDArray[np.intp]) -> float:
    """The share that pictures drawn by chance from the set would reach for the chosen captions."""
    sizes = Counter(groups.tolist())
    return float(np.mean([sizes[group] / len(groups) for group in groups[chosen].tolist()]))


def print_groups(asked: NDArray[np.str_], found: NDArray[np.str_]) -> None:
    """A line a group: how many were asked for, and what the nearest real pictures are of."""
    for group in sorted(set(asked.tolist())):
        answers = Counter(found[asked == group].tolist())
        others = ", ".join(f"{name} {count}" for name, count in answers.most_common() if name != group)
        print(f"{group:12}{answers[group]:4} of {answers.total():3}   {others}")


def save_sheet(art: Artwork, asked: NDArray[np.intp], painted: NDArray[np.uint8], path: Path) -> None:
    """Rows of real pictures, each above what was painted for its caption."""
    rows = []
    for start in range(0, len(asked) - len(asked) % SHEET_COLUMNS, SHEET_COLUMNS):
        stop = start + SHEET_COLUMNS
        rows += [art.images[asked[start:stop]], painted[start:stop]]
    contact_sheet(np.concatenate(rows), SHEET_COLUMNS).save(path)
    print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
