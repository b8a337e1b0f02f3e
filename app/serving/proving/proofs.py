"""What a file claims is painted again, frame by frame, and compared with what is in it."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Final

from app.core.errors import InvalidRequest
from app.serving.decode import decode_apart, essence
from app.serving.difference import Difference, Tally, opaque
from app.serving.encode import Pixels
from app.serving.film import FilmRecipe
from app.serving.films.archive import FRAME_NAME
from app.serving.films.containers import FilmFormat
from app.serving.films.reading import MAX_FRAMES, Facts, decoded_frames, facts
from app.serving.films.writing import FilmWriter, open_film
from app.serving.frames import frame_size
from app.serving.proving.claims import (
    MAX_PIXELS,
    NAMES_TOLD,
    Claim,
    is_beside,
    opened,
    picture_bytes,
    picture_in,
    wrong_size,
)
from app.serving.proving.zips import Zip
from app.serving.recipe import Recipe
from app.serving.repaint import TOGETHER, Repainter
from app.serving.runtime import Runtime
from app.serving.verify import compare, to_paint, why

MOST_FRAME_PIXELS: Final = 2**20  # of a film that was enlarged: to be told by its size
LENGTH_SECONDS, LENGTH_SHARE = 0.01, 0.001  # that a film may be longer or shorter: containers count in such units
VIDEOS: Final = frozenset({"mp4", "webm"})
CHUNK_BYTES: Final = 1024 * 1024


def prove(file: BinaryIO, claim: Claim, here: Runtime, repainter: Repainter) -> Difference | None:
    """How a film, a sheet or a zip differs from what it claims to be; None where no pixel does.

    Raises InvalidRequest for a damaged file, and as Repainter does.
    """
    recipe = claim.recipe
    if isinstance(recipe, Recipe):
        raise ValueError("A picture is proved by verify.compare.")
    if recipe is None:
        with opened(file) as data:
            return _pictures(Zip(data), here, repainter)
    painted = to_paint(recipe, here)
    if claim.container is None:
        (sheet,) = repainter.frames(painted)
        with opened(file) as data:
            return compare(picture_bytes(data), sheet, recipe, painted)
    if claim.container == "zip":
        with opened(file) as data:
            tally = _matched(_entries(Zip(data), recipe), map(opaque, repainter.frames(painted)))
        return tally.difference(why(recipe, painted), film=True)
    return _film(file, claim.container, recipe, painted, repainter)


def _film(
    file: BinaryIO, container: FilmFormat, recipe: FilmRecipe, painted: FilmRecipe, repainter: Repainter
) -> Difference | None:
    size = frame_size(recipe)
    most = max(size[0] * size[1], MOST_FRAME_PIXELS)
    found = facts(file, max_frames=min(MAX_FRAMES, MAX_PIXELS // (size[0] * size[1])), max_pixels=most)
    if (difference := _against(found, recipe)) is not None:
        return difference
    limits = {"max_frames": recipe.frames, "max_pixels": size[0] * size[1]}
    rebuilt = repainter.frames(painted)
    if found.lossless:
        tally = _matched(decoded_frames(file, **limits), map(opaque, rebuilt))
        return tally.difference(why(recipe, painted), film=True)
    how = f" Both were compared as a {container}, which keeps not all of a picture."
    with tempfile.TemporaryDirectory() as folder:
        again = _written_again(Path(folder), container, recipe, rebuilt)
        if any(_same_bytes(file, other) for other in again):
            return None
        matched = [_matched(decoded_frames(file, **limits), decoded_frames(other, **limits)) for other in again]
    differences = [tally.difference(why(recipe, painted) + how, film=True) for tally in matched]
    return min(differences, key=lambda difference: 0.0 if difference is None else difference.mean or 0.0)


def _written_again(folder: Path, container: FilmFormat, recipe: FilmRecipe, frames: Iterable[Pixels]) -> list[Path]:
    """Films of these frames as Ganvas may have written them: of the two ways to a video, a file does not say which."""
    size, told = frame_size(recipe), recipe.canonical_json()
    places: list[Path] = []
    films: list[FilmWriter] = []
    with ExitStack() as stack:
        for fine in (False, True) if container in VIDEOS else (False,):
            place = folder / f"again-{len(films)}"
            film = open_film(place, container, size=size, fps=recipe.fps or 1, recipe=told, fine=fine)
            films.append(stack.enter_context(film))
            places.append(place)
        for frame in frames:
            for film in films:
                film.add(frame)
    return places


def _against(found: Facts, recipe: FilmRecipe) -> Difference | None:
    """What can be said against a film without its pixels."""
    size = frame_size(recipe)
    if found.size != size:
        return wrong_size(found.size, size)
    if found.frames != recipe.frames:
        return Difference(f"It has {found.frames:,} frames and its recipe says {recipe.frames:,}.")
    length, fps = recipe.frames / (recipe.fps or 1), found.fps or recipe.fps or 1
    if abs(found.frames / fps - length) > max(LENGTH_SECONDS, LENGTH_SHARE * length):
        return Difference(f"It shows {fps:.4g} frames a second and its recipe says {recipe.fps}.")
    return None


def _matched(found: Iterable[Pixels], expected: Iterable[Pixels]) -> Tally:
    """The frames of a film against those of another, as many."""
    tally = Tally()
    for one, other in zip_longest(found, expected):
        if one is None or other is None:
            raise InvalidRequest("The film has not the frames that it lists.", code="film_invalid", param="file")
        tally.add(one, other)
    return tally


def _same_bytes(file: BinaryIO, other: Path) -> bool:
    file.seek(0)
    with other.open("rb") as again:
        while chunk := file.read(CHUNK_BYTES):
            if chunk != again.read(CHUNK_BYTES):
                return False
        return not again.read(1)


def _entries(archive: Zip, recipe: FilmRecipe) -> Iterator[Pixels]:
    """The frames of a zip."""
    size = frame_size(recipe)
    for number in range(recipe.frames):
        picture = essence(archive.read(FRAME_NAME.format(number)))
        if picture.size != size:
            has, says = (f"{width}x{height}" for width, height in (picture.size, size))
            message = f"Frame {number} has {has} pixels, and the recipe says {says}."
            raise InvalidRequest(message, code="film_invalid", param="file")
        yield decode_apart(picture)


def _pictures(archive: Zip, here: Runtime, repainter: Repainter) -> Difference | None:
    """Each picture of a zip against its own recipe."""
    altered: list[tuple[str, Difference]] = []
    pictures = 0
    for files in _groups(archive):
        recipes = [recipe for _, _, recipe in files]
        paints = [to_paint(recipe, here) for recipe in recipes]
        pictures += len(files)
        for (name, file, recipe), paint, pixels in zip(files, paints, repainter.pictures(paints), strict=True):
            size = essence(file).size
            same_size = size == recipe.size
            difference = compare(file, pixels, recipe, paint) if same_size else wrong_size(size, recipe.size)
            if difference is not None:
                altered.append((name, difference))
    if not altered:
        return None
    name, first = altered[0]
    names = tuple(name for name, _ in altered[:NAMES_TOLD])
    reason = f"{len(altered):,} of its {pictures:,} pictures differ. {name[:80]!r}: {first.reason}"
    return Difference(reason, frames=len(altered), altered=names)


def _groups(archive: Zip) -> Iterator[list[tuple[str, bytes, Recipe]]]:
    """The pictures of a zip, name, file and recipe, some at a time."""
    group: list[tuple[str, bytes, Recipe]] = []
    for name in archive.names:
        file = archive.read(name)
        if not is_beside(name) and (recipe := picture_in(file)) is not None:
            group.append((name, file, recipe))
        if len(group) == 4 * TOGETHER:
            yield group
            group = []
    if group:
        yield group
