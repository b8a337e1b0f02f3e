"""Animated WebP, written frame by frame: RIFF chunks around what Pillow makes of each frame.

https://developers.google.com/speed/webp/docs/riff_container
"""

import io
import struct
from pathlib import Path
from typing import Final

from PIL import Image

from app.core.errors import InvalidRequest
from app.serving.encode import DEFAULT_QUALITY, XMP, Pixels, exif
from app.serving.films.containers import WEBP_ALPHA, WEBP_EXIF, WEBP_MOVING, WEBP_XMP
from app.serving.films.settings import FilmSettings

LONGEST_WEBP_SIDE: Final = 16_383  # of a VP8 or VP8L frame
LARGEST_RIFF: Final = 2**32 - 10
UNITS: Final = 1000  # a second
FOR_EVER, ONCE = 0, 1  # loops
NOT_BLENDED: Final = 0x02  # a frame replaces the one before
HEAD: Final = struct.Struct("<4sI4s4sIB3x")  # RIFF, and VP8X up to its sides
# Pillow's settings: method 2 packs lossy frames in the time of 0, and 1 lossless ones a third smaller than 0
LOSSY: Final = {"quality": DEFAULT_QUALITY, "method": 2}
LOSSLESS: Final = {
    "lossless": True,
    "exact": True,
    "quality": 20,
    "method": 1,
}  # exact: colours under full transparency


class AnimatedWebp:
    """Every frame is whole in itself: in a film of a GAN no part of a picture stays as it was."""

    def __init__(self, path: Path, settings: FilmSettings) -> None:
        self._settings = settings
        self._options = LOSSLESS if settings.lossless else LOSSY
        self._frames = 0
        self._flags = WEBP_MOVING | WEBP_XMP | (0 if settings.recipe is None else WEBP_EXIF)
        self._file = path.open("wb")
        self._write_head()
        loops = FOR_EVER if settings.loop else ONCE
        self._write(b"ANIM", struct.pack("<IH", 0, loops))  # the background is transparent

    def add(self, pixels: Pixels) -> None:
        channels = pixels.shape[2]
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
        if channels in (2, 4):
            self._flags |= WEBP_ALPHA
        buffer = io.BytesIO()
        image.convert("RGBA" if channels in (2, 4) else "RGB").save(buffer, "WEBP", **self._options)
        duration = self._settings.duration(self._frames, UNITS)
        place = b"".join(_24(number) for number in (0, 0, image.width - 1, image.height - 1, duration))
        self._write(b"ANMF", place + bytes([NOT_BLENDED]) + _picture(buffer.getvalue()))
        self._frames += 1

    def close(self) -> None:
        if self._settings.recipe is not None:
            self._write(b"EXIF", exif(self._settings.recipe).removeprefix(b"Exif\0\0"))
        self._write(b"XMP ", XMP)
        self._write_head()
        self._file.close()

    def abandon(self) -> None:
        self._file.close()

    def _write_head(self) -> None:
        """At the start, with the size of what is written so far."""
        end = max(self._file.tell(), HEAD.size + 6)
        self._file.seek(0)
        self._file.write(HEAD.pack(b"RIFF", end - 8, b"WEBP", b"VP8X", 10, self._flags))
        self._file.write(b"".join(_24(side - 1) for side in self._settings.size))

    def _write(self, kind: bytes, data: bytes) -> None:
        if self._file.tell() + len(data) + 9 > LARGEST_RIFF:
            raise InvalidRequest("A WebP holds 4 GB, and these frames are more; ask for webm or zip.", param="format")
        self._file.write(kind + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2))


def _picture(still: bytes) -> bytes:
    """The chunks that make the pixels of a still WebP: alpha, if any, and the frame."""
    start, parts = 12, []
    while start < len(still):
        kind, length = struct.unpack_from("<4sI", still, start)
        end = start + 8 + length + length % 2
        if kind != b"VP8X":
            parts.append(still[start:end])
        start = end
    return b"".join(parts)


def _24(number: int) -> bytes:
    return number.to_bytes(3, "little")
