"""What every container promises of its films, read back by PyAV, Pillow and zipfile."""

import io
from pathlib import Path
from zipfile import ZipFile

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from app.core.errors import InvalidRequest
from app.serving.encode import XMP, Pixels
from app.serving.films.containers import HEAD_BYTES, MEDIA_TYPES, FilmFormat, film_format
from app.serving.films.reading import decoded_frames
from app.serving.films.writing import open_film
from tests.app.serving.films.conftest import (
    FPS,
    FRAMES,
    HEIGHT,
    KINDS,
    LOSSLESS,
    RECIPE,
    WIDTH,
    AFilm,
    WriteFilm,
    make_frames,
)

CONTAINERS: list[FilmFormat] = list(MEDIA_TYPES)
MARK = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def read_back(path: Path) -> tuple[list[Pixels], float | None]:
    """Frames as RGB and their rate, by other code than ours."""
    if path.suffix in (".mp4", ".webm"):
        with av.open(str(path)) as film:
            rate = film.streams.video[0].average_rate
            return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)], rate and float(rate)
    if path.suffix == ".zip":
        with ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".png")]
            return [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names], None
    with Image.open(path) as image:
        seconds, frames = 0.0, []
        for frame in ImageSequence.Iterator(image):
            frames.append(np.asarray(frame.convert("RGB")))
            seconds += frame.info["duration"] / 1000
        return frames, len(frames) / seconds


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_frames_rate_and_size_are_those_that_were_asked_for(
    a_film: AFilm, container: FilmFormat, lossless: bool
) -> None:
    path = a_film(container, lossless)
    frames, fps = read_back(path)

    assert len(frames) == FRAMES
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert fps == (None if container == "zip" else pytest.approx(FPS))
    assert film_format(path.read_bytes()[:HEAD_BYTES]) == container


@pytest.mark.parametrize("container", LOSSLESS)
def test_lossless_films_hold_exactly_the_pixels(write_film: WriteFilm, container: FilmFormat) -> None:
    for frames in (make_frames(), make_frames(3, 33, 17), [np.full((16, 16, 3), 255, np.uint8)] * 2):
        assert np.array_equal(read_back(write_film(container, True, frames))[0], frames)


@pytest.mark.parametrize("container", LOSSLESS)
def test_lossless_grey_is_grey(write_film: WriteFilm, container: FilmFormat) -> None:
    frames = make_frames(3, channels=1)

    assert np.array_equal(read_back(write_film(container, True, frames))[0], np.repeat(frames, 3, axis=3))


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_films_look_like_their_frames(a_film: AFilm, container: FilmFormat, lossless: bool) -> None:
    frames, _ = read_back(a_film(container, lossless))
    difference = np.abs(np.stack(frames).astype(int) - np.stack(make_frames()))

    assert difference.mean() < (6 if container == "gif" else 4)  # levels, of colours that fill the whole cube


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_the_same_frames_and_arguments_give_the_same_bytes(
    a_film: AFilm, write_film: WriteFilm, container: FilmFormat, lossless: bool
) -> None:
    assert a_film(container, lossless).read_bytes() == write_film(container, lossless).read_bytes()


def smooth_frames() -> list[Pixels]:
    """A light that goes round in another, 64 x 64."""
    y, x = np.mgrid[:64, :64]

    def glow(turn: float, width: float) -> NDArray[np.float64]:
        away = (x - 32 - 13 * np.cos(turn)) ** 2 + (y - 32 - 13 * np.sin(turn)) ** 2
        return np.exp(-away / width**2)

    shades = [(glow(turn, 10), glow(-turn / 2, 16)) for turn in np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)]
    return [np.stack([40 + 200 * a, 60 + 150 * b, 250 - 180 * a * b], axis=2).astype(np.uint8) for a, b in shades]


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_what_the_memory_held_before_is_not_seen_in_a_film(write_film: WriteFilm, container: FilmFormat) -> None:
    chance, seen = np.random.RandomState(0), set()
    rubbish: list[NDArray[np.uint8]] = []
    for _ in range(8):
        rubbish += [chance.randint(0, 256, chance.randint(10, 100_000), dtype=np.uint8) for _ in range(20)]
        rubbish = rubbish[-40:]
        seen.add(write_film(container, frames=smooth_frames()).read_bytes())

    assert len(seen) == 1


@pytest.mark.parametrize("container", ["mp4", "webm", "webp", "gif"])
def test_colours_come_back_within_three_levels(write_film: WriteFilm, container: FilmFormat) -> None:
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)], np.uint8)
    frame = np.repeat(np.repeat(colours[None], 32, axis=0), 32, axis=1)  # squares of 32 pixels, side by side
    frames, _ = read_back(write_film(container, frames=[frame] * 2))
    middles = np.stack(frames)[:, 16, 16::32].astype(int)

    assert np.abs(middles - colours).max() <= 3


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_lossy_video_says_in_which_colours_it_is(a_film: AFilm, container: FilmFormat) -> None:
    with av.open(str(a_film(container))) as film:
        context = film.streams.video[0].codec_context

    assert (context.pix_fmt, context.color_range) == ("yuv420p", 1)  # limited
    assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 13)  # BT.709, BT.709, sRGB


@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_colours_stay_where_they_were(write_film: WriteFilm, container: FilmFormat) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    frame = np.stack([np.tile(line, (64, 1)) for line in (ramp, np.full(64, 128, np.uint8), ramp[::-1])], axis=2)
    shown = next(decoded_frames(write_film(container, frames=[frame] * 2))).astype(int)
    shift = (shown[:, 8:-8] - frame[:, 8:-8].astype(int)).mean(axis=(0, 1)) / (255 / 63)  # pixels, of red and of blue

    assert np.abs(shift).max() < 0.2  # colour taken to be at the left of its place is off by half of a pixel


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("level", ["full", "minimal"])
def test_the_mark_of_ai_media_is_there_at_every_level(
    a_film: AFilm, write_film: WriteFilm, container: FilmFormat, level: str
) -> None:
    path = a_film(container) if level == "full" else write_film(container, recipe=None)
    data = path.read_bytes()

    assert MARK in data
    assert (b"checkpoint" in data) == (level == "full")
    if container == "webm":
        with av.open(str(path)) as film:
            assert film.metadata["XMP"].encode() == XMP
    elif container == "mp4":
        with av.open(str(path), options={"export_xmp": "1"}) as film:
            assert film.metadata["xmp"].encode() == XMP
    elif container == "zip":
        with ZipFile(path) as archive:
            pictures = [Image.open(archive.open(name)) for name in archive.namelist() if name.endswith("png")]
            assert all(picture.info["xmp"] == XMP for picture in pictures)
            assert len(pictures) == FRAMES
    elif container == "gif":
        with Image.open(path) as image:
            name, place = image.info["extension"]
        assert (name, data[place - 11 : place + len(XMP)]) == (b"XMP DataXMP", b"XMP DataXMP" + XMP)
    else:
        with Image.open(path) as image:
            assert image.info["xmp"] == XMP


def test_programs_find_the_recipe_where_each_container_keeps_such_things(a_film: AFilm) -> None:
    with av.open(str(a_film("mp4"))) as film:
        assert film.metadata["comment"] == RECIPE
    with av.open(str(a_film("webm"))) as film:
        assert film.metadata["COMMENT"] == RECIPE
    with Image.open(a_film("gif")) as image:
        assert image.info["comment"] == RECIPE.encode()
    with Image.open(a_film("webp")) as image:
        assert image.getexif().get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0" + RECIPE.encode()
    with ZipFile(a_film("zip")) as archive:
        assert archive.read("recipe.json") == archive.comment == RECIPE.encode()


def test_a_player_of_mp4_begins_before_it_has_all(a_film: AFilm) -> None:
    data = a_film("mp4").read_bytes()

    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("loop", [True, False])
def test_a_loop_starts_again_for_ever(write_film: WriteFilm, loop: bool) -> None:
    with Image.open(write_film("gif", loop=loop)) as image:
        assert image.info.get("loop") == (0 if loop else None)
    with Image.open(write_film("webp", loop=loop)) as image:
        assert image.info["loop"] == (0 if loop else 1)


@pytest.mark.parametrize("channels", [2, 4])
def test_transparency_is_kept_where_it_can_be(write_film: WriteFilm, channels: int) -> None:
    frames = make_frames(2, channels=channels)
    expected = [np.asarray(Image.fromarray(frame).convert("RGBA")) for frame in frames]
    with Image.open(write_film("webp", True, frames)) as image:
        assert np.array_equal([np.asarray(frame) for frame in ImageSequence.Iterator(image)], expected)
    with ZipFile(write_film("zip", True, frames)) as archive:
        assert np.array_equal(np.asarray(Image.open(archive.open("000000.png")).convert("RGBA")), expected[0])
    for container in ("mp4", "webm"):
        with pytest.raises(InvalidRequest, match="transparency"):
            write_film(container, True, frames)
    for container in ("mp4", "webm", "gif"):
        shown, _ = read_back(write_film(container, frames=frames))
        assert np.abs(np.stack(shown).astype(int) - np.stack(expected)[..., :3]).mean() < 6


@pytest.mark.parametrize(
    ("container", "changes", "param", "words"),
    [
        ("mp4", {"size": (33, 32)}, "size", "33x32"),
        ("webm", {"size": (32, 31)}, "size", "lossless"),
        ("webp", {"size": (16_384, 2)}, "size", "16,383"),
        ("gif", {"lossless": True}, "lossless", "256 colours"),
        ("gif", {"fps": 51}, "fps", "50"),
        ("zip", {"fps": 0}, "fps", "1 to 60"),
        ("mp4", {"fps": 61}, "fps", "1 to 60"),
    ],
)
def test_what_a_container_cannot_hold_is_refused_before_a_frame(
    tmp_path: Path, container: FilmFormat, changes: dict[str, object], param: str, words: str
) -> None:
    arguments: dict[str, object] = {"size": (32, 32), "fps": 24, "recipe": RECIPE} | changes
    with pytest.raises(InvalidRequest, match=words) as caught:
        open_film(tmp_path / "film", container, **arguments)  # type: ignore[arg-type]

    assert caught.value.param == param
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_error_leaves_no_file_and_the_old_one_as_it_was(tmp_path: Path, container: FilmFormat) -> None:
    path = tmp_path / "film"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), open_film(path, container, size=(WIDTH, HEIGHT), fps=24, recipe=None) as film:
        film.add(make_frames()[0])
        raise RuntimeError("The artist changed their mind.")
    with pytest.raises(ValueError, match="frame"), open_film(path, container, size=(8, 8), fps=24, recipe=None) as film:
        film.add(make_frames()[0])
    with pytest.raises(ValueError, match="without frames"):
        open_film(path, container, size=(8, 8), fps=24, recipe=None).close()

    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_still_pictures_and_strangers_are_no_films(tmp_path: Path) -> None:
    still = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(still, "WEBP", lossless=True, xmp=XMP)

    for data in (still.getvalue(), b"", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPVP8X", b"\0\0\0\x20"):
        assert film_format(data) is None
