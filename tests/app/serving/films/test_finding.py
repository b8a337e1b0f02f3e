"""The recipe is found wherever a container keeps it, and looking for it costs little in any file."""

import mmap
import time
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest

from app.serving.films.containers import MEDIA_TYPES, FilmFormat
from app.serving.films.finding import read_recipe_text
from app.serving.recipe import MAX_RECIPE_BYTES
from tests.app.serving.films.conftest import KINDS, RECIPE, AFilm, WriteFilm

CONTAINERS: list[FilmFormat] = list(MEDIA_TYPES)
OPENING = b'{"checkpoint":"'
MIB = 1 << 20


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_the_recipe_is_read_back_as_it_was_written(a_film: AFilm, container: FilmFormat, lossless: bool) -> None:
    assert read_recipe_text(a_film(container, lossless).read_bytes()) == RECIPE


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_longest_recipe_is_read_back_too(write_film: WriteFilm, container: FilmFormat) -> None:
    longest = RECIPE.replace("caf", (MAX_RECIPE_BYTES - len(RECIPE) + 3) * "x")
    path = write_film(container, frames=[np.zeros((16, 16, 3), np.uint8)], recipe=longest)

    assert len(longest) == MAX_RECIPE_BYTES
    assert read_recipe_text(path.read_bytes()) == longest
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert read_recipe_text(mapped) == longest


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_film_with_the_mark_alone_holds_no_recipe(write_film: WriteFilm, container: FilmFormat) -> None:
    assert read_recipe_text(write_film(container, recipe=None).read_bytes()) is None


def test_a_zip_that_was_packed_again_keeps_it_in_its_comment(write_film: WriteFilm) -> None:
    path = write_film("zip", recipe=RECIPE.replace("caf", 400 * "caf"))
    again = path.with_name("again.zip")
    with ZipFile(path) as old, ZipFile(again, "w", ZIP_DEFLATED) as new:
        new.comment = old.comment
        for name in old.namelist():
            new.writestr(name, old.read(name))

    assert read_recipe_text(again.read_bytes()) == old.comment.decode()


def test_what_only_opens_like_a_recipe_is_passed_over() -> None:
    assert read_recipe_text(OPENING + b"\xff" + RECIPE.encode()[20:] + RECIPE.encode()) == RECIPE
    for data in (b"", OPENING, RECIPE.encode()[:-1], RECIPE.encode()[1:], b"GIF89a!\xfe\xff" + OPENING):
        assert read_recipe_text(data) is None
    for piece in (b"\0", b"\xff"):  # a GIF's comment that ends at once, and one that never does
        assert read_recipe_text(b"GIF89a!\xfe" + piece + OPENING + piece * 300) is None


@pytest.mark.parametrize(
    "piece", [OPENING, OPENING[:-1], b"!\xfe\x0f" + OPENING, b"\0", b'"version":1}', b"{", b"\xff" + OPENING]
)
@pytest.mark.parametrize("signature", [b"", b"GIF89a"])
def test_a_huge_file_full_of_beginnings_costs_a_moment(signature: bytes, piece: bytes) -> None:
    data = signature + piece * (32 * MIB // len(piece))
    started = time.perf_counter()

    assert read_recipe_text(data) is None
    assert time.perf_counter() - started < 1
