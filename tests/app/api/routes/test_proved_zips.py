"""Zips of frames and of pictures, and sheets: each picture in them is proved, and what is not there is told."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.serving.encode import DIGITAL_SOURCE_TYPE, Pixels, sheet_png
from app.serving.film import FilmRecipe
from app.serving.films.containers import FilmFormat
from app.serving.frames import frame_size

ROUTE = "/v1/recipes/verify"
FRAMES = 10
LOSSLESS: list[FilmFormat] = ["mp4", "webm", "webp", "zip"]
LOSSY: list[FilmFormat] = ["mp4", "webm", "webp", "gif"]
KINDS = [(container, True) for container in LOSSLESS] + [(container, False) for container in LOSSY]

Films = Callable[..., FilmRecipe]
Write = Callable[..., bytes]
Frames = Callable[[FilmRecipe], list[Pixels]]


def verify(client: httpx.Client, file: bytes) -> httpx.Response:
    return client.post(ROUTE, files={"file": ("film", file)})


def verified(client: httpx.Client, file: bytes) -> dict[str, Any]:
    answer = verify(client, file)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def repacked(file: bytes, change: Callable[[list[tuple[str, bytes]]], None], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with other files in it."""
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
        comment = archive.comment
    change(entries)
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", method) as archive:
        archive.comment = comment
        for name, data in entries:
            archive.writestr(name, data)
    return place.getvalue()


def test_frames_of_a_zip_that_are_missing_added_or_renamed_are_told(
    client: httpx.Client, make_film: Films, write_film: Write
) -> None:
    file = write_film(make_film(), "zip")
    missing = verified(client, repacked(file, lambda entries: entries.__delitem__(slice(3, 5))))["difference"]
    assert (missing["missing"], missing["added"]) == (["000002.png", "000003.png"], [])
    added = verified(client, repacked(file, lambda entries: entries.append(("000010.png", entries[1][1]))))
    assert (added["difference"]["missing"], added["difference"]["added"]) == ([], ["000010.png"])
    renamed = repacked(file, lambda entries: entries.__setitem__(1, ("first.png", entries[1][1])))
    assert verified(client, renamed)["difference"]["added"] == ["first.png"]
    assert verified(client, repacked(file, lambda entries: entries.append(("notes.txt", b"mine"))))["identical"]
    without = repacked(file, lambda entries: entries.__delitem__(0))
    assert verified(client, without)["identical"]  # the comment has the recipe too
    packed = verify(client, repacked(file, lambda entries: None, zipfile.ZIP_DEFLATED))
    assert (packed.status_code, packed.json()["error"]["code"]) == (422, "film_invalid")


def drawn_zip(client: httpx.Client, **body: Any) -> bytes:
    answer = client.post(
        "/v1/images/generations", json={"model": "vivid"} | body, headers={"accept": "application/zip"}
    )
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.parametrize("kind", [("png", None), ("webp", 100), ("webp", 40), ("jpeg", 90)])
def test_each_picture_of_a_zip_is_proved_by_its_own_recipe(
    client: httpx.Client, kind: tuple[str, int | None], vivid: str
) -> None:
    fields = {"n": 40, "seed": 500, "output_format": kind[0], "output_compression": kind[1]}
    file = drawn_zip(client, **fields)
    assert verified(client, file) == {"identical": True, "pictures": 40}

    def forge(entries: list[tuple[str, bytes]]) -> None:
        for number in (3, 33):
            entries[number] = (entries[number][0], entries[number][1].replace(b'"seed":5', b'"seed":6'))

    difference = verified(client, repacked(file, forge))["difference"]
    assert (difference["frames"], difference["altered"]) == (2, [f"03-503.{kind[0]}", f"33-533.{kind[0]}"])
    assert "2 of its 40 pictures differ" in difference["reason"]


def test_what_is_no_picture_in_a_zip_of_them_is_told(client: httpx.Client, make_film: Films, write_film: Write) -> None:
    file = drawn_zip(client, n=2, seed=1)
    beside = repacked(file, lambda entries: entries.append(("recipes.json", b"[]")))
    assert verified(client, beside)["identical"] is True
    film = write_film(make_film(), "webp")
    stranger = repacked(file, lambda entries: entries.extend([("loop.webp", film), ("cat.png", b"\x89PNG")]))
    assert verified(client, stranger)["difference"]["added"] == ["cat.png", "loop.webp"]
    nothing = repacked(file, lambda entries: entries.__setitem__(slice(None), [("cat.png", b"\x89PNG")]))
    assert verify(client, nothing).json()["error"]["code"] == "recipe_missing"


def test_a_sheet_is_proved_as_a_picture_is(
    client: httpx.Client,
    make_film: Films,
    painted_frames: Frames,
    older: str,
    vivid: str,
    spoken: str,
    stored: list[str],
) -> None:
    nothing = dict.fromkeys(("path", "space", "easing", "fps"))
    sheets = [
        make_film(kind="grid", columns=3, frames=1, seeds=list(range(7)), keyframes=[{"seed": 0}], **nothing),
        make_film(
            kind="grid",
            columns=2,
            frames=1,
            checkpoints=[older, vivid],
            models=["older", "vivid"],
            keyframes=[{"seed": 1, "latent": stored[2]}, {"seed": 2, "variations": [{"seed": 1, "strength": 0.3}]}],
            size=(20, 40),
            **nothing,
        ),
    ]
    for sheet in sheets:
        (pixels,) = painted_frames(sheet)
        file = sheet_png(pixels, sheet)
        assert verified(client, file)["identical"], sheet
        with Image.open(io.BytesIO(file)) as image:
            assert image.size == frame_size(sheet)
            assert image.info["ganvas"] == sheet.canonical_json()
            assert image.info["parameters"].startswith("Steps: 1, Sampler: GAN, Seed: ")
            assert DIGITAL_SOURCE_TYPE in image.info["XML:com.adobe.xmp"]
        altered = sheet.model_copy(update={"keyframes": sheet.keyframes[::-1], "seeds": sheet.seeds[::-1]})
        answer = verified(client, sheet_png(pixels, altered))
        (expected,) = painted_frames(altered)
        assert answer["difference"]["pixels"] == np.count_nonzero((pixels != expected).any(axis=2))
        assert "frames" not in answer["difference"]
        cropped = verified(client, sheet_png(pixels[:-1], sheet))
        assert cropped["difference"]["size"] == [pixels.shape[1], pixels.shape[0] - 1]
