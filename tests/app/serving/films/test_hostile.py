"""Files made to break, stall or flood a decoder: each is answered soon, and costs its own process at most."""

import io
import random
import struct
import time
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest

from app.core.errors import InvalidRequest
from app.serving.encode import marked_png
from app.serving.films.containers import MEDIA_TYPES, FilmFormat
from app.serving.films.reading import decoded_frames, facts
from tests.app.serving.films.conftest import HEIGHT, LOSSLESS, WIDTH, AFilm

CONTAINERS: list[FilmFormat] = list(MEDIA_TYPES)
SECONDS = 5  # that an answer may take
TOGETHER = 2  # decoders at a time
FUZZED = 20  # files of each container
MIB = 1 << 20


def refused(data: bytes) -> str:
    """What is said against a file, which must be said soon."""
    started = time.perf_counter()
    with pytest.raises(InvalidRequest) as caught:
        for _ in decoded_frames(data, max_pixels=MIB):
            pass
    assert time.perf_counter() - started < SECONDS
    assert (caught.value.error_code, caught.value.param) == ("film_invalid", "file")
    return caught.value.message


def each(files: Iterable[bytes]) -> list[str]:
    """What is said against each of several files."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        return list(pool.map(refused, files))


def box(kind: bytes, body: bytes = b"") -> bytes:
    """A box of mp4."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def element(identifier: str, body: bytes = b"") -> bytes:
    """An element of EBML, its size in eight bytes."""
    return bytes.fromhex(identifier) + (len(body) | 1 << 56).to_bytes(8) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of RIFF."""
    return struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2)


def archive(*files: tuple[str, bytes], packing: int = 0) -> bytes:
    """A zip."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", packing) as zipped:
        for name, data in files:
            zipped.writestr(ZipInfo(name), data, packing)
    return buffer.getvalue()


def gif(frames: int, width: int = 1, height: int = 1) -> bytes:
    """A GIF of so many black frames of a pixel, 22 bytes each."""
    frame = b"!\xf9\x04\x04\x02\0\0\0" + b",\0\0\0\0\1\0\1\0\0" + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + struct.pack("<2H3B", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def webp(frames: int, width: int, height: int) -> bytes:
    """An animated WebP of frames of nothing."""
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    head = chunk(b"VP8X", b"\x02\0\0\0" + sides) + chunk(b"ANIM", bytes(6))
    body = b"WEBP" + head + chunk(b"ANMF", bytes(6) + sides + b"\x10\0\0\0" + chunk(b"VP8L", bytes(8))) * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that declares one size, of any rows."""
    parts = [
        (b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_film_that_ends_in_the_middle_is_refused(a_film: AFilm, container: FilmFormat) -> None:
    data = a_film(container, container in LOSSLESS).read_bytes()

    each(data[: int(len(data) * share)] for share in (0.01, 0.3, 0.6, 0.9))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_film_with_flipped_bytes_is_refused_or_has_frames_of_its_size(a_film: AFilm, container: FilmFormat) -> None:
    data = a_film(container, container in LOSSLESS).read_bytes()
    chance = random.Random(container)

    def decode(_: int) -> str:
        broken = bytearray(data)
        for _ in range(chance.choice((1, 3, 10, 100))):
            broken[chance.randrange(chance.choice((200, 1500, len(data))))] = chance.randrange(256)
        started = time.perf_counter()
        try:
            shapes = {frame.shape[:2] for frame in decoded_frames(bytes(broken), max_pixels=MIB)}
        except InvalidRequest as error:
            shapes, answer = {(HEIGHT, WIDTH)}, error.error_code
        else:
            answer = "decoded"
        assert len(shapes) == 1
        assert time.perf_counter() - started < SECONDS
        return answer

    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(decode, range(FUZZED)))
    assert set(answers) <= {"decoded", "film_invalid"}
    assert "film_invalid" in answers


def test_giants_are_refused_before_they_are_unpacked() -> None:
    giant = (1 << 31) - 1
    each(
        [
            gif(1, 65_535, 65_535),
            webp(2, 1 << 24, 1 << 24),
            webp(2, 1 << 14, 1 << 14),
            archive(("000000.png", png_of(giant, giant, b""))),
            archive(("000000.png", png_of(8000, 8000, bytes(8001 * 8000)))),
            archive(("000000.png", png_of(0, 0, b""))),
        ]
    )


def test_floods_of_frames_are_refused_by_their_number() -> None:
    pixel = marked_png(np.zeros((1, 1, 3), np.uint8))
    named = archive(*((f"{place:06d}.png", pixel) for place in range(7201)))
    said = each([gif(100_000), webp(100_000, 4, 4), named])

    assert "more than 7,200 frames" in said[0]
    assert "more than 7,200 frames" in said[2]


def test_a_long_film_of_small_frames_is_read_all_the_same() -> None:
    assert facts(gif(7000)).frames == 7000


def test_bombs_are_not_unpacked() -> None:
    zeros = bytes(64 * MIB)
    small = marked_png(np.zeros((4, 4, 3), np.uint8))
    overlapping = bytearray(archive(("000000.png", small), ("000001.png", small)))
    place = overlapping.index(b"PK\1\2", overlapping.index(b"PK\1\2") + 4)
    overlapping[place + 42 : place + 46] = bytes(4)  # the second is said to lie where the first does
    said = each(
        [
            archive(("000000.png", zeros), packing=ZIP_DEFLATED),
            archive(("000000.png", small + zeros)),
            bytes(overlapping),
            archive(("000000.png", png_of(1000, 1000, zeros[:1000]))),
            archive(("../000000.png", small)),
            archive(("000000.png", small), ("000000.png.png", small)),
            archive(("readme.txt", b"")),
            archive(("000000.png", small), ("000001.png", marked_png(np.zeros((5, 4, 3), np.uint8)))),
            archive(("000000.png", b"GIF89a")),
        ]
    )

    assert "packed once more" in said[0]
    assert "several sizes" in said[7]


def test_boxes_in_boxes_and_tables_without_end_are_refused() -> None:
    start = box(b"ftyp", b"isom\0\0\2\0isom")
    deep = b""
    for _ in range(20_000):
        deep = struct.pack(">I4s", 8 + len(deep), b"moov") + deep if len(deep) < 8 * MIB else deep
    endless = struct.pack(">2I", 0, 0xFFFFFFFF)
    tables = [
        box(kind, endless + bytes(64)) for kind in (b"stts", b"stsz", b"stco", b"stsc", b"ctts", b"co64", b"stss")
    ]
    track = box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", b"".join(tables)))))
    each(
        [
            start,
            start + deep,
            start + box(b"moov", box(b"trak", deep)),
            start + box(b"moov", track * 1000),
            start + box(b"moov", box(b"udta", box(b"meta", bytes(4) + box(b"ilst", box(b"\xa9cmt", bytes(16 * MIB)))))),
            start + struct.pack(">I4sQ", 1, b"mdat", 1 << 62),
            start + struct.pack(">I4s", 0, b"moov"),
            start + box(b"free") * 200_000,
        ]
    )


def test_elements_in_elements_are_refused() -> None:
    head = element("1a45dfa3", element("4282", b"webm"))
    tags = b""
    for _ in range(2000):
        tags = element("67c8", tags)
    segments = b""
    for _ in range(2000):
        segments = element("18538067", segments)
    unknown = bytes.fromhex("01ffffffffffffff")  # a size that is not known
    each(
        [
            head,
            head + element("18538067", element("1254c367", element("7373", tags))),
            head + segments,
            head + (bytes.fromhex("18538067") + unknown) * 10_000,
            head + (bytes.fromhex("1f43b675") + unknown) * 100_000,
            head + element("18538067", element("ec", bytes(32 * MIB))),
            bytes.fromhex("1a45dfa3") + b"\xff" * 100_000,
        ]
    )


def test_what_is_no_film_is_refused_by_name() -> None:
    for data in (b"", b"GIF", b"%PDF-1.7", marked_png(np.zeros((4, 4, 3), np.uint8)), bytes(MIB)):
        assert "no mp4, WebM, animated WebP, GIF or zip" in refused(data)
