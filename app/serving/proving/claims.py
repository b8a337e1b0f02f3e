"""What a file says it is, before anything of it is decoded or painted."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from app.core.errors import InvalidRequest, TooLarge
from app.serving.bulk import file_name
from app.serving.decode import essence
from app.serving.difference import Difference
from app.serving.encode import read_recipe
from app.serving.film import AnyRecipe, FilmRecipe, read_canonical
from app.serving.films.archive import FRAME_NAME, RECIPE_NAME
from app.serving.films.containers import HEAD_BYTES, FilmFormat, film_format
from app.serving.frames import checkpoints, frame_size
from app.serving.proving.zips import Zip
from app.serving.recipe import MAX_RECIPE_BYTES, Recipe

MAX_PICTURE_BYTES: Final = 64 * 1024 * 1024  # of the largest sheet, where every pixel is chance
MAX_FRAME_PIXELS: Final = 2**24  # 4096 x 4096
MAX_PIXELS: Final = 2**27  # of all frames, or of all that is painted for them: 512 of 512 x 512
MAX_PAINTED: Final = 10_000  # pictures
NAMES_TOLD: Final = 20
BESIDE_PICTURES: Final = frozenset({".json", ".csv", ".txt"})  # files of a zip that tell of its pictures


@dataclass(frozen=True)
class Claim:
    """What a file says it is, what it takes to prove that, and what its head alone says against it."""

    recipe: AnyRecipe | None  # None: a zip of pictures that have one each
    container: FilmFormat | None = None  # None: a picture or a sheet
    painted: int = 1  # pictures
    checkpoints: dict[str, str] = field(default_factory=dict)  # sha256, and what their model is called
    stored: frozenset[str] = frozenset()
    difference: Difference | None = None


def claim(file: BinaryIO) -> Claim:
    """What a file claims to be. Raises InvalidRequest for what holds no recipe, is no file of ours or claims to be too
    long, TooLarge for too many bytes."""
    with opened(file) as data:
        container = film_format(data[:HEAD_BYTES])
        if container == "zip":
            archive = Zip(data)
            recipe = _recipe_of(archive)
            if isinstance(recipe, FilmRecipe):
                return _film(recipe, container, _names(archive, recipe))
            return _pictures(archive, recipe)
        found = read_recipe(data)
        if found is None:
            raise _missing()
        if isinstance(found, FilmRecipe):
            return _film(found, container, _against(found, container, data))
        told = _against(found, container, data)
        return Claim(found, container, 1, {found.checkpoint: found.model}, found.stored(), told)


@contextmanager
def opened(file: BinaryIO) -> Iterator[mmap | bytes]:
    """The bytes of a file, read as they are needed."""
    file.seek(0)
    if not file.read(1):
        yield b""  # which cannot be mapped
        return
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        yield data


def picture_bytes(data: mmap | bytes) -> bytes:
    """The bytes of a picture, in memory. Raises TooLarge."""
    if len(data) > MAX_PICTURE_BYTES:
        raise TooLarge(f"The picture has {len(data):,} bytes; at most {MAX_PICTURE_BYTES:,} are taken here.")
    return bytes(data)


def picture_in(file: bytes) -> Recipe | None:
    """The recipe of a file of a zip, where it is a picture."""
    if film_format(file[:HEAD_BYTES]) is not None or len(file) > MAX_PICTURE_BYTES:
        return None
    recipe = read_recipe(file)
    return recipe if isinstance(recipe, Recipe) else None


def is_beside(name: str) -> bool:
    """Whether a file of a zip only tells of its pictures."""
    return PurePosixPath(name).suffix.lower() in BESIDE_PICTURES


def require_length(pictures: int, frames: int, pixels: int, largest: int) -> None:
    """InvalidRequest for what would take too long to prove; pixels: of all frames; largest: of a frame."""
    if pictures > MAX_PAINTED or pixels > MAX_PIXELS or largest > MAX_FRAME_PIXELS:
        message = (
            f"It shows {pictures:,} pictures in {frames:,} frames of {pixels:,} pixels in all. At most {MAX_PAINTED:,} "
            f"pictures, {MAX_PIXELS:,} pixels in all and {MAX_FRAME_PIXELS:,} a frame are proved here."
        )
        raise InvalidRequest(message, code="film_too_long", param="file")


def require_work(pictures: int, resolution: int) -> None:
    """InvalidRequest where networks of so many pixels a side would have to paint too much."""
    if pictures * resolution**2 > MAX_PIXELS:
        message = (
            f"It takes {pictures:,} pictures of a network of {resolution}x{resolution} pixels; at most {MAX_PIXELS:,} "
            "pixels in all are painted to prove a file."
        )
        raise InvalidRequest(message, code="film_too_long", param="file")


def _film(recipe: FilmRecipe, container: FilmFormat | None, difference: Difference | None) -> Claim:
    width, height = frame_size(recipe)
    painted = recipe.frames if recipe.kind in {"loop", "walk"} else recipe.pictures
    if recipe.kind == "growth":
        painted *= len(checkpoints(recipe))
    require_length(painted, recipe.frames, recipe.frames * width * height, width * height)
    shown = checkpoints(recipe)
    models = dict(zip(shown, recipe.models or [recipe.model] * len(shown), strict=True))
    return Claim(recipe, container, painted, models, recipe.stored(), difference)


def _against(recipe: AnyRecipe, container: FilmFormat | None, data: mmap | bytes) -> Difference | None:
    """What the head of a file alone says against its recipe."""
    is_film = isinstance(recipe, FilmRecipe) and recipe.kind != "grid"
    kind = recipe.kind if isinstance(recipe, FilmRecipe) else "picture"
    if (container is not None) != is_film:
        return Difference(f"It is a {container or 'picture'}, and its recipe is that of a {kind}.")
    if container is not None:
        return None
    size = essence(picture_bytes(data)).size
    expected = frame_size(recipe) if isinstance(recipe, FilmRecipe) else recipe.size
    return None if size == expected else wrong_size(size, expected)


def wrong_size(size: tuple[int, int], expected: tuple[int, int]) -> Difference:
    """A file that has not the pixels that its recipe says."""
    has, says = (f"{width}x{height}" for width, height in (size, expected))
    return Difference(f"It has {has} pixels and its recipe says {says}: it was resized or cropped.", size)


def _missing() -> InvalidRequest:
    message = "The file holds no recipe: Ganvas did not make it, made it with metadata: minimal, or it was lost since."
    return InvalidRequest(message, code="recipe_missing", param="file")


def _recipe_of(archive: Zip) -> AnyRecipe | None:
    """The recipe of a zip of frames, or of a batch, where its pictures' recipes differ in the seed alone; None where a
    zip has none of its own."""
    inside = RECIPE_NAME in archive.names and archive.size(RECIPE_NAME) <= MAX_RECIPE_BYTES
    text = archive.read(RECIPE_NAME) if inside else archive.comment
    return read_canonical(text.decode("ascii", "replace"))


def _names(archive: Zip, recipe: FilmRecipe) -> Difference | None:
    """What the names of its files say against a zip of frames."""
    expected = {FRAME_NAME.format(number) for number in range(recipe.frames)}
    found = {name for name in archive.names if not is_beside(name)}
    missing, added = expected - found, (found - expected) | set(archive.repeated)
    if not missing and not added:
        return None
    reason = f"Of its {recipe.frames:,} frames {len(missing):,} are missing, and {len(added):,} other files are there."
    return Difference(reason, missing=_told(missing), added=_told(added))


def _pictures(archive: Zip, template: Recipe | None) -> Claim:
    """Of a zip of pictures; those that say nothing of themselves, or are no pictures of the batch, are told."""
    models: dict[str, str] = {}
    stored: set[str] = set()
    pictures, pixels, largest, strange = 0, 0, 0, set(archive.repeated)
    for name in archive.names:
        if is_beside(name):
            continue
        recipe = picture_in(archive.read(name))
        if recipe is None or not _is_of(template, recipe, name):
            strange.add(name)
        if recipe is None:
            continue
        area = recipe.size[0] * recipe.size[1]
        pictures, pixels, largest = pictures + 1, pixels + area, max(largest, area)
        models[recipe.checkpoint] = recipe.model
        stored |= recipe.stored()
        require_length(max(pictures, len(stored)), pictures, pixels, largest)
    if not pictures:
        raise _missing()
    difference = None
    if strange:
        reason = f"It holds {len(strange):,} files that are no pictures with a recipe, or not those of their names."
        difference = Difference(reason, added=_told(strange))
    return Claim(None, "zip", pictures, models, frozenset(stored), difference)


def _is_of(template: Recipe | None, recipe: Recipe, name: str) -> bool:
    """Whether a picture is the one of a batch that its name says."""
    if template is None:
        return True
    suffix = PurePosixPath(name).suffix.removeprefix(".")
    return recipe == template.model_copy(update={"seed": recipe.seed}) and name == file_name(recipe.seed, suffix)


def _told(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names)[:NAMES_TOLD])
