"""GIF of one palette for all frames, which are kept on the disk until it is known. GIF89a, CompuServe, 1990."""

import struct
import tempfile
from pathlib import Path
from typing import IO, Final

import numpy as np
from isal import isal_zlib
from PIL import Image
from PIL.GifImagePlugin import getdata

from app.serving.encode import XMP, Pixels
from app.serving.films.palette import COLOURS, Painter, Sampler
from app.serving.films.settings import FilmSettings

UNITS: Final = 100  # a second
FASTEST_GIF: Final = 50  # frames a second: browsers show what takes under two units for ten
FULL_PALETTE: Final = 0xF7  # one for all frames, of 256 colours, 8 bits a channel
LOOP_FOR_EVER: Final = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"
# Its bytes lead any reader, whatever length it takes the last byte of the packet for, to the end. XMP, part 3, 1.1.2
XMP_TRAILER: Final = bytes([1, *range(255, -1, -1), 0])
MARK: Final = b"!\xff\x0bXMP DataXMP" + XMP + XMP_TRAILER
COMMENT_PIECE: Final = 255
DELAY: Final = struct.Struct("<4sHxx")
DELAYED: Final = b"!\xf9\x04\x04"  # the picture stays until the next one replaces it
SPOOL_LEVEL: Final = 0  # of igzip


class Gif:
    """Takes frames, samples their colours, and writes the file when it is closed. Alpha is left out."""

    def __init__(self, path: Path, settings: FilmSettings) -> None:
        self._path = path
        self._settings = settings
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 it is closed with the film
        self._sampler = Sampler()
        self._shape: tuple[int, ...] = ()

    def add(self, pixels: Pixels) -> None:
        shown = np.ascontiguousarray(pixels[:, :, :1] if pixels.shape[2] < 3 else pixels[:, :, :3])
        self._shape = shown.shape
        if shown.shape[2] == 3:
            self._sampler.add(shown)
        packed = isal_zlib.compress(shown, SPOOL_LEVEL)
        self._spool.write(len(packed).to_bytes(4) + packed)

    def close(self) -> None:
        grey = self._shape[2] == 1
        palette = np.repeat(np.arange(COLOURS, dtype=np.uint8)[:, None], 3, axis=1) if grey else self._sampler.palette()
        paint = (lambda frame: frame[:, :, 0]) if grey else Painter(palette)
        with self._path.open("wb") as file:
            file.write(b"GIF89a" + struct.pack("<2H3B", *self._settings.size, FULL_PALETTE, 0, 0) + palette.tobytes())
            if self._settings.loop:
                file.write(LOOP_FOR_EVER)
            if self._settings.recipe is not None:
                file.write(_comment(self._settings.recipe.encode()))
            file.write(MARK)
            self._spool.seek(0)
            frame = 0
            while length := self._spool.read(4):
                packed = self._spool.read(int.from_bytes(length))
                pixels = np.frombuffer(isal_zlib.decompress(packed), dtype=np.uint8).reshape(self._shape)
                self._settings.heed()
                file.write(DELAY.pack(DELAYED, self._settings.duration(frame, UNITS)))
                file.write(b"".join(getdata(Image.fromarray(paint(pixels)))))
                frame += 1
            file.write(b";")
        self._spool.close()

    def abandon(self) -> None:
        self._spool.close()


def _comment(text: bytes) -> bytes:
    pieces = (text[start : start + COMMENT_PIECE] for start in range(0, len(text), COMMENT_PIECE))
    return b"!\xfe" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
