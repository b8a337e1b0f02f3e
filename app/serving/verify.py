"""Is a file the picture its recipe says? Both are decoded and compared pixel by pixel.

JPEG and WebP lose some of a picture, so it is encoded again at the quality the file was saved at, which its own tables
tell, and what is left of both is compared.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO, Final

import numpy as np

from app.core.errors import InvalidRequest
from app.serving.decode import Essence, decode, essence
from app.serving.encode import Pixels, encode, read_recipe
from app.serving.recipe import Recipe
from app.serving.runtime import Runtime

FALLING_QUALITY: Final = range(100, -1, -1)


@dataclass(frozen=True)
class Difference:
    """How a file differs from what its recipe gives."""

    reason: str
    size: tuple[int, int] | None = None  # of the file, where it is not the recipe's; the rest is None then
    pixels: int | None = None  # that differ in any channel
    share: float | None = None  # of all pixels
    max: int | None = None  # levels, of 255
    mean: float | None = None  # levels, over all channels of all pixels


def claim(file: BinaryIO) -> tuple[Recipe, Difference | None]:
    """What a file says it is, and what its head alone says against that; no pixel is decoded.

    Raises InvalidRequest for what holds no recipe, or is no picture of ours.
    """
    data = _all(file)
    recipe = read_recipe(data)
    if recipe is None:
        message = (
            "The file holds no recipe: Ganvas did not make it, made it with metadata: minimal, or it was lost since."
        )
        raise InvalidRequest(message, code="recipe_missing", param="file")
    size = essence(data).size
    if size == recipe.size:
        return recipe, None
    has, says = (f"{width}x{height}" for width, height in (size, recipe.size))
    return recipe, Difference(f"It has {has} pixels and its recipe says {says}: it was resized or cropped.", size)


def to_paint(recipe: Recipe, here: Runtime) -> Recipe:
    """The recipe with the runtime to rebuild it on: its own as far as this device has it, else what is usual here."""
    foreign = recipe.device not in (None, here.device)
    lacking = recipe.dtype is None or (recipe.dtype == "float16" and here.device == "cpu")
    dtype = here.dtype if foreign or lacking else recipe.dtype
    return recipe.model_copy(update={"device": here.device, "dtype": dtype})


def compare(file: BinaryIO, rebuilt: Pixels, recipe: Recipe, painted: Recipe) -> Difference | None:
    """How a file differs from [H, W, C], its recipe rebuilt on what `painted` says; None where no pixel does.

    Raises InvalidRequest for a damaged file.
    """
    picture = essence(_all(file))
    found = decode(picture)
    pixels = decode(essence(encode(rebuilt, output_format="png", recipe=recipe, metadata="minimal")))
    expected, how = (pixels, "") if picture.output_format == "png" else _as_saved(picture, pixels, recipe)
    if found.shape != expected.shape:
        return Difference("One of the two is transparent in places and the other is not.")
    levels = np.maximum(found, expected) - np.minimum(found, expected)
    changed = int(levels.any(axis=2).sum())
    if not changed:
        return None
    return Difference(
        _why(recipe, painted) + how,
        pixels=changed,
        share=changed / (levels.shape[0] * levels.shape[1]),
        max=int(levels.max()),
        mean=float(levels.mean()),
    )


def _all(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _as_saved(picture: Essence, pixels: Pixels, recipe: Recipe) -> tuple[Pixels, str]:
    """The rebuilt pixels as they come out of a file saved as this one was, and words on how that was."""

    @cache
    def at(quality: int) -> Essence:
        return essence(
            encode(pixels, output_format=picture.output_format, recipe=recipe, compression=quality, metadata="minimal")
        )

    place = min(bisect_left(FALLING_QUALITY, picture.coding, key=lambda quality: at(quality).coding), 100)
    nearest = FALLING_QUALITY[place]
    for quality in FALLING_QUALITY[place:]:  # neighbours may share the coding and still differ
        if at(quality).coding != picture.coding:
            break
        if at(quality).file == picture.file:
            nearest = quality
    of = f"{picture.output_format.upper()} of quality {nearest}"
    if at(nearest).coding == picture.coding:
        return decode(at(nearest)), f" Both were compared as {of}."
    return decode(at(nearest)), f" It was not saved by this version of Ganvas; a {of} is nearest, and was compared."


def _why(recipe: Recipe, painted: Recipe) -> str:
    here = f"{painted.device} in {painted.dtype}"
    if recipe.device is None or recipe.dtype is None:
        return f"It does not say what it was painted on; rebuilt on {here} it is not the same."
    if (recipe.device, recipe.dtype) != (painted.device, painted.dtype):
        return f"It was painted on {recipe.device} in {recipe.dtype} and rebuilt on {here}, which rounds otherwise."
    return (
        f"Painted on {here}, its recipe gives other pixels: one of the two was changed, or another kind of processor "
        "painted it."
    )
