"""Microseconds and bytes a file, by what encodes it: the choice behind app/serving/encode.py and docs/adr/0010.

A PNG is written by encode() itself, its recipe and mark inside, with another library in the place of its deflate; JPEG
and WebP by Pillow with other options. Pictures: of the bundled model, as they are and enlarged to 256 px as a request
would have them; and smooth and textured ones of 256 px made from those. Encoders take turns, and time is the thread's
own on the processor, so that neighbours hardly count; what is not installed is said and left out.

python benchmarks/encoders.py --install --markdown    (2 minutes)
"""

import argparse
import importlib
import importlib.util
import io
import math
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from isal import isal_zlib
from PIL import Image, PngImagePlugin

from app.serving import encode as encoding
from app.serving.encode import Pixels, encode
from app.serving.recipe import OutputFormat, Recipe
from models.checkpoint import load_generator
from models.sampling import render

PACKAGES = Path(__file__).with_name("results") / "encoder-packages"
REQUIREMENTS = ("deflate==0.9.0", "fpng_py==0.0.3", "simplejpeg==1.9.0", "zlib-ng==1.1.0")
BUNDLED = Path(__file__).parents[1] / "models" / "pretrained" / "emoji.safetensors"
LARGE = 256  # pixels a side
TEXTURE = 3.0  # levels of 255, the spread of the noise that stands for texture
LEAST_TURNS = 3

Encoder = Callable[[Pixels, Recipe], bytes]
Deflate = Callable[[Pixels], bytes]


class Missing(Exception):
    """This library is not installed."""


def png(deflate: Deflate) -> Encoder:
    """encode() with other compression of the filtered rows."""

    def written(image: Pixels, recipe: Recipe) -> bytes:
        with mock.patch.object(encoding, "deflate", deflate):
            return encode(image, output_format="png", recipe=recipe)

    return written


def igzip(level: int, window: int = encoding.DEFLATE_WINDOW) -> Encoder:
    """ISA-L's."""
    return png(lambda rows: isal_zlib.compress(rows, level, wbits=window))


def zlib_like(module: str, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> Encoder:
    """zlib, or a library with its functions."""
    library: Any = installed(module)

    def deflate(rows: Pixels) -> bytes:
        stream = library.compressobj(level, strategy=strategy)
        packed: bytes = stream.compress(rows) + stream.flush()
        return packed

    return png(deflate)


def libdeflate(level: int) -> Encoder:
    """libdeflate, which takes a whole picture at once."""
    library: Any = installed("deflate")
    return png(lambda rows: bytes(library.zlib_compress(rows, level)))


def fpng() -> Encoder:
    """A PNG writer with Huffman tables made beforehand. It takes no text chunks: its files lack the recipe."""
    library: Any = installed("fpng_py")

    def written(image: Pixels, recipe: Recipe) -> bytes:
        pixels = encoding.resample(image, recipe.size)
        return bytes(library.fpng_encode_image_to_memory(pixels.tobytes(), *recipe.size, pixels.shape[2]))

    return written


def pillow_png(level: int) -> Encoder:
    """Pillow's own PNG, with the same texts."""

    def written(image: Pixels, recipe: Recipe) -> bytes:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("ganvas", recipe.canonical_json())
        texts.add_text("parameters", recipe.parameters_line())
        texts.add_itxt("XML:com.adobe.xmp", encoding.XMP.decode())
        return saved(encoding.resample(image, recipe.size), "png", compress_level=level, pnginfo=texts)

    return written


def pillow(output_format: str, **options: Any) -> Encoder:
    """JPEG or WebP with these options and encode()'s metadata."""

    def written(image: Pixels, recipe: Recipe) -> bytes:
        told = {"quality": encoding.DEFAULT_QUALITY, "exif": encoding._exif(recipe), "xmp": encoding.XMP}
        return saved(encoding.resample(image, recipe.size), output_format, **told | options)

    return written


def all_pillow(output_format: str) -> Encoder:
    """JPEG or WebP with Pillow's own options, the EXIF by Pillow too."""

    def written(image: Pixels, recipe: Recipe) -> bytes:
        exif = Image.Exif()
        comment = encoding.ASCII_COMMENT + recipe.canonical_json().encode()
        exif.get_ifd(encoding.EXIF_IFD)[encoding.USER_COMMENT] = comment
        return pillow(output_format, exif=exif.tobytes())(image, recipe)

    return written


def simplejpeg() -> Encoder:
    """libjpeg-turbo without Pillow around it. It takes no metadata: its files lack the recipe."""
    library: Any = installed("simplejpeg")

    def written(image: Pixels, recipe: Recipe) -> bytes:
        pixels = encoding.resample(image, recipe.size)
        return bytes(library.encode_jpeg(pixels, encoding.DEFAULT_QUALITY, "RGB", "420"))

    return written


def saved(image: Pixels, output_format: str, **options: Any) -> bytes:
    """Pillow's file of a picture."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, output_format, **options)
    return file.getvalue()


def served(output_format: OutputFormat) -> Encoder:
    """encode() as it is."""
    return lambda image, recipe: encode(image, output_format=output_format, recipe=recipe)


# The first of each format is what it was, and what the others are compared with.
PNGS: dict[str, Callable[[], Encoder]] = {
    "zlib 1, runs": lambda: zlib_like("zlib", 1, zlib.Z_RLE),
    "served": lambda: served("png"),
    "igzip 0": lambda: igzip(0),
    "igzip 1, 32 KiB window": lambda: igzip(1, zlib.MAX_WBITS),
    "igzip 2": lambda: igzip(2),
    "igzip 3": lambda: igzip(3),
    "zlib 1": lambda: zlib_like("zlib", 1),
    "zlib 6": lambda: zlib_like("zlib", 6),
    "zlib-ng 1": lambda: zlib_like("zlib_ng.zlib_ng", 1),
    "zlib-ng 1, runs": lambda: zlib_like("zlib_ng.zlib_ng", 1, zlib.Z_RLE),
    "zlib-ng 2": lambda: zlib_like("zlib_ng.zlib_ng", 2),
    "libdeflate 1": lambda: libdeflate(1),
    "libdeflate 6": lambda: libdeflate(6),
    "Pillow 1": lambda: pillow_png(1),
    "Pillow 6": lambda: pillow_png(6),
    "fpng, no recipe": fpng,
}
JPEGS: dict[str, Callable[[], Encoder]] = {
    "all by Pillow": lambda: all_pillow("jpeg"),
    "served": lambda: served("jpeg"),
    "optimised": lambda: pillow("jpeg", optimize=True),
    "progressive": lambda: pillow("jpeg", progressive=True),
    "colours of full size": lambda: pillow("jpeg", subsampling=0),
    "simplejpeg, no recipe": simplejpeg,
}
WEBPS: dict[str, Callable[[], Encoder]] = {
    "all by Pillow": lambda: all_pillow("webp"),
    "served": lambda: served("webp"),
    **{f"method {method}": partial(pillow, "webp", method=method) for method in range(1, 5)},
    "lossless, method 0": lambda: pillow("webp", lossless=True, method=0, quality=0),
    "lossless, method 1": lambda: pillow("webp", lossless=True, method=1, quality=0),
}
FORMATS = {"png": PNGS, "jpeg": JPEGS, "webp": WEBPS}


def installed(name: str) -> Any:
    """A library that may be missing. Raises Missing."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise Missing(f"{name} is not installed (--install fetches it)")
    return importlib.import_module(name)


class Subject(NamedTuple):
    """Pictures, and the side that they are asked for with."""

    name: str
    images: list[Pixels]
    side: int

    def recipes(self) -> list[Recipe]:
        """One a picture."""
        sides, checkpoint = (self.side, self.side), "a" * 64
        count = len(self.images)
        return [Recipe(model="emoji", checkpoint=checkpoint, seed=seed, size=sides) for seed in range(count)]


def subjects(count: int) -> list[Subject]:
    """Pictures of every kind."""
    generator, _ = load_generator(BUNDLED, torch.device("cpu"))
    painted = list(render(generator, range(count), psi=0.7, batch=8))
    smooth = [np.asarray(Image.fromarray(image).resize((LARGE, LARGE), Image.Resampling.BICUBIC)) for image in painted]
    chance = np.random.RandomState(0)
    textured = [
        np.clip(image + chance.normal(0, TEXTURE, image.shape), 0, 255).round().astype(np.uint8) for image in smooth
    ]
    return [
        Subject("64 px", painted, painted[0].shape[0]),
        Subject("64 px as 256", painted, LARGE),
        Subject("256 px, smooth", smooth, LARGE),
        Subject("256 px, textured", textured, LARGE),
    ]


def main() -> None:
    """Print every encoder's times and sizes."""
    args = arguments()
    if args.install:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--target", str(PACKAGES), *REQUIREMENTS], check=True)
    sys.path.append(str(PACKAGES))
    torch.set_num_threads(1)
    heads = ["pictures", "format", "encoder", "µs", "x as fast", "bytes", "dB"]
    show(heads, args.markdown)
    if args.markdown:
        show(["---"] * len(heads), args.markdown)
    for subject in subjects(args.pictures):
        for output_format in args.formats:
            for cells in rows(subject, available(FORMATS[output_format]), args.seconds):
                show([subject.name, output_format, *cells], args.markdown)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each kind of picture and format, at least")
    parser.add_argument("--pictures", type=int, default=32, help="of each kind")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--install", action="store_true", help=f"fetch {', '.join(REQUIREMENTS)} into {PACKAGES.name}")
    parser.add_argument("--markdown", action="store_true", help="print a table for documents")
    return parser.parse_args()


def available(choices: Mapping[str, Callable[[], Encoder]]) -> dict[str, Encoder]:
    """Those whose libraries are here."""
    found = {}
    for name, make in choices.items():
        try:
            found[name] = make()
        except Missing as reason:
            print(f"{name} is left out: {reason}.", file=sys.stderr)
    return found


def rows(subject: Subject, encoders: dict[str, Encoder], seconds: float) -> list[list[str]]:
    """Each encoder's cells: microseconds and bytes a picture, the median of its turns over all pictures."""
    recipes = subject.recipes()
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    files: dict[str, list[bytes]] = {}
    end = time.perf_counter() + seconds
    turns = 0
    while time.perf_counter() < end or turns < LEAST_TURNS:
        turns += 1
        for name, encoder in encoders.items():
            start = time.thread_time()
            files[name] = [encoder(image, recipe) for image, recipe in zip(subject.images, recipes, strict=True)]
            taken[name].append(time.thread_time() - start)
    wanted = [encoding.resample(image, (subject.side, subject.side)) for image in subject.images]
    each = {name: 1e6 * statistics.median(turns) / len(wanted) for name, turns in taken.items()}
    before = next(iter(each.values()))
    return [
        [
            name,
            f"{each[name]:.0f}",
            f"{before / each[name]:.2f}",
            f"{size(files[name]):.0f}",
            decibels(files[name], wanted),
        ]
        for name in encoders
    ]


def size(files: Sequence[bytes]) -> float:
    """Bytes of a file, on average."""
    return statistics.fmean(map(len, files))


def decibels(files: Sequence[bytes], wanted: Sequence[Pixels]) -> str:
    """Peak signal to noise of the pictures in files; "exact" where there is none."""
    squared = 0.0
    for file, pixels in zip(files, wanted, strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=float)
        squared += float(((decoded - pixels) ** 2).mean()) / len(files)
    return f"{10 * math.log10(255**2 / squared):.1f}" if squared else "exact"


def show(cells: Sequence[str], markdown: bool) -> None:
    """A line of the table."""
    line = f"| {' | '.join(cells)} |" if markdown else "{:17} {:6} {:24} {:>7} {:>10} {:>8} {:>6}".format(*cells)
    print(line, flush=True)


if __name__ == "__main__":
    main()
