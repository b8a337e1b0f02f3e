"""Is a picture the one its recipe says? Both are decoded and compared pixel by pixel.

JPEG and lossy WebP lose some of a picture, so it is encoded again at the quality the file was saved at, which its own
tables tell, and what is left of both is compared.
"""

from bisect import bisect_left
from functools import cache
from typing import TypeVar

from app.serving.decode import Essence, decode, decode_apart, essence
from app.serving.difference import Difference, Tally, opaque
from app.serving.encode import LOSSLESS_WEBP, Pixels, marked
from app.serving.film import AnyRecipe, FilmRecipe
from app.serving.recipe import Recipe
from app.serving.runtime import Runtime

Told = TypeVar("Told", Recipe, FilmRecipe)


def to_paint(recipe: Told, here: Runtime) -> Told:
    """The recipe with the runtime to rebuild it on: its own as far as this device has it, else what is usual here."""
    foreign = recipe.device not in (None, here.device)
    lacking = recipe.dtype is None or (recipe.dtype == "float16" and here.device == "cpu")
    dtype = here.dtype if foreign or lacking else recipe.dtype
    return recipe.model_copy(update={"device": here.device, "dtype": dtype})


def compare(file: bytes, rebuilt: Pixels, recipe: AnyRecipe, painted: AnyRecipe) -> Difference | None:
    """How a picture differs from [H, W, C], what its recipe gives at its size on what `painted` says; None where no
    pixel does. Raises InvalidRequest for a damaged file."""
    picture = essence(file)
    found = decode_apart(picture)
    expected, how = _as_saved(picture, opaque(rebuilt))
    if found.shape != expected.shape:
        return Difference("One of the two is transparent in places and the other is not.")
    tally = Tally()
    tally.add(found, expected)
    return tally.difference(why(recipe, painted) + how)


def why(recipe: AnyRecipe, painted: AnyRecipe) -> str:
    """What may have made a difference, in words."""
    here = f"{painted.device} in {painted.dtype}"
    if recipe.device is None or recipe.dtype is None:
        return f"It does not say what it was painted on; rebuilt on {here} it is not the same."
    if (recipe.device, recipe.dtype) != (painted.device, painted.dtype):
        return f"It was painted on {recipe.device} in {recipe.dtype} and rebuilt on {here}, which rounds otherwise."
    return (
        f"Painted on {here}, its recipe gives other pixels: one of the two was changed, or another kind of processor "
        "painted it."
    )


def _as_saved(picture: Essence, pixels: Pixels) -> tuple[Pixels, str]:
    """The rebuilt pixels as they come out of a file saved as this one was, and words on how that was."""
    if picture.output_format == "png":
        return pixels, ""
    if picture.lossless:
        return pixels[:, :, :3], ""  # transparency is left out, as in a JPEG

    @cache
    def at(quality: int) -> Essence:
        return essence(marked(pixels, picture.output_format, quality))

    falling = range(LOSSLESS_WEBP - (picture.output_format == "webp"), -1, -1)
    place = min(bisect_left(falling, picture.coding, key=lambda quality: at(quality).coding), len(falling) - 1)
    nearest = falling[place]
    for quality in falling[place:]:  # neighbours may share the coding and still differ
        if at(quality).coding != picture.coding:
            break
        if at(quality).file == picture.file:
            nearest = quality
    of = f"{picture.output_format.upper()} of quality {nearest}"
    if at(nearest).coding == picture.coding:
        return decode(at(nearest)), f" Both were compared as {of}."
    return decode(at(nearest)), f" It was not saved by this version of Ganvas; a {of} is nearest, and was compared."
