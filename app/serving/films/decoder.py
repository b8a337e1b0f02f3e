"""Turns one untrusted film into frames or facts, in a process that may be limited, stuck or killed.

A program of its own: the film is its stdin, `decoder.py facts|frames FORMAT MAX_FRAMES MAX_PIXELS` its command. It
imports Pillow or PyAV and nothing of ours but its limits, and is given no environment. It answers in messages on
stdout, each a kind, a length and a body: H, a JSON object with the size and the channels of all frames; F, the pixels
of the next one; E, a JSON object with their number and rate, the end; X, in words why there is no more.
"""

import importlib
import io
import json
import os
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from app.serving.limited.program import allow_cpu, confine

START_SECONDS: Final = 2  # of the processor, for what comes before the first frames
PIXELS_A_SECOND: Final = 4_000_000  # a quarter of what the slowest of our films comes to
FRAME_SECONDS: Final = 0.002  # for each frame, however small
AHEAD: Final = 4  # frames that a decoder may want before it gives the first
MESSAGE: Final = struct.Struct("!cI")

VIDEO: Final = ("av.video.reformatter", "av.subtitles.stream")
NEEDED: Final = {  # by container: what can be imported no more once no file can be opened
    "mp4": VIDEO,
    "webm": VIDEO,
    "gif": ("PIL.GifImagePlugin", "copy"),
    "webp": ("PIL.WebPImagePlugin",),
    "zip": ("PIL.PngImagePlugin", "encodings.cp437"),
}
CODECS: Final = {"mp4": "h264", "webm": "vp9"}
RGB, RGBA = "RGB", "RGBA"
EXACT: Final = frozenset({"gbrp", "rgb24"})  # formats of pixels that are no other colours than those of the frames
WEBP_HEAD, WEBP_CHUNK_HEAD, WEBP_FRAME_HEAD = 12, 8, 16  # bytes
LOSSY_FRAMES: Final = frozenset({b"VP8 ", b"ALPH"})
PNG_SIDES: Final = 16  # where they stand in the file
PNG_EXCESS: Final = 65_536  # bytes that a PNG may have beyond its pixels

Head = dict[str, Any]


class Refused(Exception):
    """The film is none of ours, or damaged; in words that end the sentence 'The film cannot be read: '."""


class Film:
    """What is common to all containers: what is allowed, and what is known so far."""

    def __init__(self, file: BinaryIO, max_frames: int, max_pixels: int) -> None:
        self.file = file
        self.max_frames = max_frames
        self.max_pixels = max_pixels
        self.size = (0, 0)
        self.channels = 3
        self.frames = 0
        self.fps: float | None = None
        self.lossless = False

    def declare(self, width: int, height: int, channels: int = 3) -> None:
        """Note the size that the file declares before a pixel is decoded, and allow for it."""
        if not 0 < width * height <= self.max_pixels:
            raise Refused(f"a frame of {width}x{height} pixels is too large, or nothing")
        self.size, self.channels = (width, height), channels
        allow_cpu(self.seconds())

    def seconds(self) -> float:
        """Processor seconds that it may have taken by now."""
        return allowed_seconds(self.frames, self.size)

    def count(self, size: tuple[int, int]) -> None:
        """One more frame, of this size."""
        self.frames += 1
        if self.frames > self.max_frames:
            raise Refused(f"it has more than {self.max_frames:,} frames")
        if size != self.size:
            raise Refused("its frames have several sizes")


def allowed_seconds(frames: int, size: tuple[int, int]) -> float:
    """Processor seconds for what it takes to deliver so many frames and begin on the next."""
    return START_SECONDS + (frames + AHEAD) * (FRAME_SECONDS + size[0] * size[1] / PIXELS_A_SECOND)


def video(film: Film, container: str, *, decode: bool) -> Iterator[bytes]:
    """mp4 or WebM: frames as RGB, or, undecoded, as empty bytes. One stream, of the codec that ours have."""
    import av

    codec = CODECS[container]
    options = {"codec_whitelist": codec, "err_detect": "explode"}
    with av.open(film.file, "r", format=container, options=options, metadata_errors="ignore") as source:
        if len(source.streams) != 1 or len(source.streams.video) != 1:
            raise Refused("it has not one stream of pictures")
        stream = source.streams.video[0]
        if stream.codec_context.name != codec or not stream.average_rate:
            raise Refused(f"its pictures are not in {codec} at a steady rate, as ours are")
        film.declare(stream.codec_context.width, stream.codec_context.height)
        film.fps = float(stream.average_rate)
        film.lossless = stream.codec_context.pix_fmt in EXACT
        declared = stream.frames or round((source.duration or 0) / 1e6 * film.fps)
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}
        for packet in source.demux(stream):
            if packet.is_corrupt:
                raise Refused("it is damaged")
            if not decode and packet.size:
                film.count(film.size)
                yield b""
            for frame in packet.decode() if decode else ():
                film.count((frame.width, frame.height))
                yield rgb(frame)
    if film.frames != declared:
        raise Refused(f"it declares {declared:,} frames and has {film.frames:,}")


def rgb(frame: Any) -> bytes:
    """The pixels of a decoded frame, 3 bytes each, in the colours that it is tagged with."""
    from av.video.reformatter import Interpolation as Way

    ways = Way.BICUBIC | Way.ACCURATE_RND | Way.BITEXACT | Way.FULL_CHR_H_INT | Way.FULL_CHR_H_INP
    plane = frame.reformat(format="rgb24", interpolation=ways, threads=1).planes[0]
    rows, width = memoryview(plane), frame.width * 3
    return b"".join(rows[start : start + width] for start in range(0, frame.height * plane.line_size, plane.line_size))


def gif(film: Film) -> Iterator[bytes]:
    """GIF as Pillow reads it, RGB."""
    from PIL import GifImagePlugin

    head = film.file.read(10)
    film.declare(*struct.unpack_from("<2H", head, 6))
    film.file.seek(-1, os.SEEK_END)
    if film.file.read(1) != b";":
        raise Refused("it ends in the middle")
    film.file.seek(0)
    yield from moving(film, GifImagePlugin.GifImageFile(film.file))


def webp(film: Film) -> Iterator[bytes]:
    """Animated WebP as libwebp reads it, RGBA."""
    from PIL import WebPImagePlugin

    head = film.file.read(30)
    width, height = (1 + int.from_bytes(head[start : start + 3], "little") for start in (24, 27))
    film.declare(width, height, 4)
    film.file.seek(0, os.SEEK_END)
    if int.from_bytes(head[4:8], "little") + WEBP_CHUNK_HEAD != film.file.tell():
        raise Refused("it ends in the middle, or goes on behind its end")
    film.lossless = not any(kind in LOSSY_FRAMES for kind in webp_frames(film.file))
    film.file.seek(0)
    yield from moving(film, WebPImagePlugin.WebPImageFile(film.file))


def webp_frames(file: BinaryIO) -> Iterator[bytes]:
    """What each frame of an animated WebP begins with."""
    place, end = WEBP_HEAD, file.seek(0, os.SEEK_END)
    while place + WEBP_CHUNK_HEAD <= end:
        file.seek(place)
        kind, length = struct.unpack("<4sI", file.read(WEBP_CHUNK_HEAD))
        if kind == b"ANMF":
            file.seek(place + WEBP_CHUNK_HEAD + WEBP_FRAME_HEAD)
            yield file.read(4)
        place += WEBP_CHUNK_HEAD + length + length % 2


def moving(film: Film, image: Any) -> Iterator[bytes]:
    """The frames of a picture of Pillow's that moves."""
    milliseconds = 0
    while True:
        try:
            image.seek(film.frames)
        except EOFError:
            break
        film.count(image.size)
        pixels = image.convert(RGB if film.channels == 3 else RGBA).tobytes()
        milliseconds += image.info.get("duration", 0)
        yield pixels
    if not milliseconds:
        raise Refused("its frames take no time")
    film.fps = film.frames * 1000 / milliseconds


def archive(film: Film) -> Iterator[bytes]:
    """Numbered PNGs, stored and not packed, RGBA."""
    from PIL import PngImagePlugin

    film.lossless = True
    with zipfile.ZipFile(film.file) as source:
        entries = [entry for entry in source.infolist() if entry.filename.endswith(".png")]
        if [entry.filename for entry in entries] != [f"{place:06d}.png" for place in range(len(entries))]:
            raise Refused("its pictures are not numbered from 000000.png on")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > 4 * film.max_pixels + PNG_EXCESS:
                raise Refused("its pictures are packed once more, or too large")
            data = source.read(entry)
            width, height = struct.unpack_from(">2I", data, PNG_SIDES)
            if not film.frames:
                film.declare(width, height, 4)
            film.count((width, height))
            with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
                if image.mode.startswith(("I", "F")) or image.size != film.size:
                    raise Refused("its pictures have more than 8 bits a channel")
                yield image.convert(RGBA).tobytes()


def read(film: Film, container: str, *, decode: bool) -> Iterator[bytes]:
    """The frames of a film in its container."""
    if container in CODECS:
        return video(film, container, decode=decode)
    return {"gif": gif, "webp": webp, "zip": archive}[container](film)


def answer(film: Film, container: str, answers: BinaryIO, *, decode: bool) -> None:
    """Write all there is to say about a film."""
    try:
        for pixels in read(film, container, decode=decode):
            if decode and film.frames == 1:
                send(answers, b"H", json.dumps({"size": film.size, "channels": film.channels}).encode())
            if decode:
                send(answers, b"F", pixels)
            allow_cpu(film.seconds())
        if not film.frames:
            raise Refused("it has no frames")
        facts = {"frames": film.frames, "fps": film.fps, "size": film.size, "lossless": film.lossless}
        send(answers, b"E", json.dumps(facts).encode())
    except Refused as refused:
        send(answers, b"X", str(refused).encode())
    except BrokenPipeError:
        return  # nobody wants more
    except Exception:  # noqa: BLE001 - decoders raise anything at all on hostile bytes
        send(answers, b"X", b"it is damaged")


def send(answers: BinaryIO, kind: bytes, body: bytes) -> None:
    """Write one message."""
    answers.write(MESSAGE.pack(kind, len(body)))
    answers.write(body)
    answers.flush()


def main() -> None:
    """Answer for the film on stdin."""
    wanted, container, max_frames, max_pixels = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not speak into the messages
    warnings.simplefilter("ignore")  # a sloppy tag spoils no pixel
    film = Film(os.fdopen(os.dup(0), "rb"), int(max_frames), int(max_pixels))
    film.file.seek(0)
    for module in NEEDED[container]:  # each import is a tenth of a second, and a film needs one
        importlib.import_module(module)
    confine()
    allow_cpu(START_SECONDS + time.process_time())
    answer(film, container, answers, decode=wanted == "frames")


if __name__ == "__main__":
    main()
