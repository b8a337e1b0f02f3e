"""Anyone's files to pixels: PNG, JPEG and WebP of the kinds we write, and of each only what makes its pixels.

The file is taken apart here and Pillow gets a new one without metadata, of a size that is known and may be refused:
what a hostile file can cost is bounded by what it declares in its head, and what it breaks is a process of its own.
"""

import atexit
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import numpy as np

from app.core.errors import InvalidRequest
from app.serving import vp8
from app.serving.encode import PNG_SIGNATURE, Pixels
from app.serving.limited import picture as program
from app.serving.limited.child import Child, Died
from app.serving.limited.program import Head
from app.serving.recipe import OutputFormat

PROCESSES: Final = 2  # that decode, at most
START_SECONDS: Final = 2  # of the processor, for what does not depend on the size
PIXELS_A_SECOND: Final = 4_000_000  # a quarter of what the slowest of our pictures comes to
LOOK_SECONDS: Final = 4  # of the processor: what 64 megapixels take
WORDS: Final = 100  # characters of a reason
WALL_SECONDS: Final = 20.0  # of the clock, for the largest where others want the processor too
JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
MAX_PARTS: Final = 4096  # chunks or segments; programs that save in small pieces write 8 KiB in each

PNG_PARTS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})  # all others leave pixels as they are
PNG_MOVING: Final = b"acTL"
DEEPEST_PNG: Final = 8  # bits a channel

# ITU-T T.81, table B.1
JPEG_BASELINE, JPEG_HUFFMAN, JPEG_SCAN, JPEG_TABLES, JPEG_RESTART = 0xC0, 0xC4, 0xDA, 0xDB, 0xDD
JPEG_METADATA: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
JPEG_COLOURS: Final = frozenset({0xE0, 0xEE})  # JFIF and Adobe say which colours the channels are
JPEG_PARTS: Final = JPEG_METADATA | JPEG_COLOURS | {JPEG_HUFFMAN, JPEG_RESTART}
JPEG_CHANNELS: Final = 3

WEBP_FRAMES: Final = frozenset({b"VP8 ", b"VP8L"})
WEBP_MOVING: Final = frozenset({b"ANIM", b"ANMF"})

Checked = TypeVar("Checked")
Part = tuple[Any, int, int]  # its kind, and where it starts and ends in the file


@dataclass(frozen=True)
class Essence:
    """What makes the pixels of a file."""

    output_format: OutputFormat
    size: tuple[int, int]  # width, height
    file: bytes  # a file of its own
    coding: bytes = b""  # of JPEG its quantisation tables, of WebP its quantisers; neither rises with the quality

    @property
    def lossless(self) -> bool:
        """Whether its pixels are those that were saved."""
        return not self.coding


_children: Final[SimpleQueue[Child]] = SimpleQueue()  # that are idle, the program's start yet to come
for _ in range(PROCESSES):
    _child = Child(Path(program.__file__), WALL_SECONDS)
    _children.put(_child)
    atexit.register(_child.close)


def essence(data: bytes) -> Essence:
    """The essence of one still picture of 8 bits. Raises InvalidRequest for any other file; no pixel is decoded."""
    try:
        if data.startswith(PNG_SIGNATURE):
            return _png(data)
        if data.startswith(JPEG_SIGNATURE):
            return _jpeg(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError) as error:
        raise _unreadable("it ends in the middle") from error
    raise _unreadable("it is no PNG, JPEG or WebP")


def decode(picture: Essence) -> Pixels:
    """[H, W, 3], or [H, W, 4] where some of it is transparent. Raises InvalidRequest for a damaged file.

    Here and now: for files that were made here. Those of others are for decode_apart().
    """
    try:
        return _shaped(picture, *program.pixels(picture.file, picture.output_format, picture.size))
    except Exception as error:  # a damaged file makes Pillow raise a dozen types
        raise _unreadable("it is damaged") from error


def decode_apart(picture: Essence) -> Pixels:
    """What decode() gives, from a process that may spend so much memory and time and can open and write nothing."""
    head = {"format": picture.output_format, "size": picture.size}
    area = picture.size[0] * picture.size[1]

    def check(answer: Head, body: bytes) -> Pixels | None:
        channels = answer.get("channels")
        if channels not in (0, 3, 4) or len(body) != area * channels:
            raise ValueError("The pixels are not those of such a picture.")
        return _shaped(picture, channels, body) if channels else None

    seconds = START_SECONDS + math.ceil(area / PIXELS_A_SECOND)
    try:
        pixels = _asked(head, picture.file, seconds, 4 * area, check)
    except Died as death:
        raise _unreadable("it takes too much to decode, or breaks its decoder") from death
    if pixels is None:
        raise _unreadable("it is damaged")
    return pixels


def require_sound(file: bytes) -> None:
    """InvalidRequest for a PNG, JPEG, WebP or GIF, of any kind, that cannot be decoded; found out apart, as above."""

    def check(answer: Head, _body: bytes) -> str | None:
        wrong = answer.get(program.WRONG)
        if wrong is not None and (type(wrong) is not str or len(wrong) > WORDS):
            raise ValueError("That is no reason.")
        return wrong

    try:
        wrong = _asked({program.LOOK: True}, file, LOOK_SECONDS, 0, check)
    except Died:
        wrong = "it takes too much to decode, or breaks its decoder"
    if wrong is not None:
        raise InvalidRequest(f"The picture cannot be read: {wrong}.", code="picture_expected", param="image")


def _asked(head: Head, file: bytes, seconds: int, max_bytes: int, check: Callable[[Head, bytes], Checked]) -> Checked:
    child = _children.get()
    try:
        return child.ask(head, file, cpu_seconds=seconds, max_bytes=max_bytes, check=check)
    finally:
        _children.put(child)


def _shaped(picture: Essence, channels: int, body: bytes) -> Pixels:
    width, height = picture.size
    pixels: Pixels = np.frombuffer(body, np.uint8).reshape(height, width, channels)
    opaque = channels == 3 or bool((pixels[:, :, 3] == 255).all())
    return pixels[:, :, :3] if opaque else pixels


def _unreadable(reason: str) -> InvalidRequest:
    message = f"The file cannot be read as a picture of ours: {reason}. Send a PNG, JPEG or WebP as Ganvas made it."
    return InvalidRequest(message, code="picture_invalid", param="file")


def _png(data: bytes) -> Essence:
    parts = []
    for kind, start, end in _whole(data, _png_parts(data)):
        if kind == PNG_MOVING:
            raise _unreadable("it is animated")
        if kind in PNG_PARTS:
            parts.append(data[start:end])
    if parts[0][4:8] != b"IHDR":
        raise _unreadable("it has no header")
    width, height, depth = struct.unpack_from(">2IB", parts[0], 8)
    if depth > DEEPEST_PNG:
        raise _unreadable(f"it has {depth} bits a channel, and ours have {DEEPEST_PNG}")
    return Essence("png", (width, height), PNG_SIGNATURE + b"".join(parts))


def _png_parts(data: bytes) -> Iterator[Part]:
    """The chunks, IEND the last."""
    start, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, start + 12 + length
        start += 12 + length


def _jpeg(data: bytes) -> Essence:
    """Baseline, all channels in one scan: a file of many scans can ask for hours of work in a few bytes."""
    parts, tables, frames = [data[:2]], [], []
    for marker, start, end in _whole(data, _jpeg_parts(data)):
        if marker == JPEG_SCAN:
            end = len(data)  # noqa: PLW2901 what was scanned has no length
        elif marker == JPEG_BASELINE:
            frames.append(struct.unpack_from(">B2HB", data, start + 4))  # bits, height, width, channels
        elif marker == JPEG_TABLES:
            tables.append(data[start + 4 : end])
        elif marker not in JPEG_PARTS:
            raise _unreadable("it is no JPEG of the baseline kind, which ours are")
        if marker not in JPEG_METADATA:
            parts.append(data[start:end])
    if len(frames) != 1:
        raise _unreadable("it has no header, or several")
    _, height, width, channels = frames[0]
    if channels != JPEG_CHANNELS or parts[-1][4] != channels:
        raise _unreadable("its colours are not three in one scan, as ours are")
    return Essence("jpeg", (width, height), b"".join(parts), b"".join(tables))


def _jpeg_parts(data: bytes) -> Iterator[Part]:
    """The segments, the head of the first scan the last."""
    start, kind = 2, 0
    while kind != JPEG_SCAN:
        opening, kind, length = struct.unpack_from(">2BH", data, start)
        if opening != 0xFF:
            raise _unreadable("it is damaged")
        yield kind, start, start + 2 + length
        start += 2 + length


def _webp(data: bytes) -> Essence:
    frames = []
    for kind, start, end in _whole(data, _webp_parts(data)):
        if kind in WEBP_MOVING:
            raise _unreadable("it is animated")
        if kind in WEBP_FRAMES:
            frames.append(data[start:end])
    if len(frames) != 1:
        raise _unreadable("it has no picture, or several")
    (frame,) = frames
    lossy = frame.startswith(b"VP8 ")
    size = vp8.frame_size(frame[8:]) if lossy else vp8.lossless_size(frame[8:])
    if size is None:
        raise _unreadable("it is damaged")
    file = struct.pack("<4sI4s", b"RIFF", 4 + len(frame), b"WEBP") + frame
    return Essence("webp", size, file, bytes(vp8.quantisers(frame[8:])) if lossy else b"")


def _webp_parts(data: bytes) -> Iterator[Part]:
    """The chunks, padded to an even length."""
    start = 12
    while start < len(data):
        kind, length = struct.unpack_from("<4sI", data, start)
        end = start + 8 + length + length % 2
        yield kind, start, end
        start = end


def _whole(data: bytes, parts: Iterator[Part]) -> Iterator[Part]:
    """The parts of a file that holds all of them, and not more of them than one of ours could."""
    for count, part in enumerate(parts):
        if count == MAX_PARTS:
            raise _unreadable(f"it is in more than {MAX_PARTS:,} pieces")
        if part[2] > len(data):
            raise _unreadable("it ends in the middle")
        yield part
