"""Anyone's film to facts and frames, decoded in a process of its own: what it breaks is that process."""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Final, Literal, TypeVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.core.errors import InvalidRequest
from app.serving.encode import Pixels
from app.serving.films import decoder
from app.serving.films.containers import HEAD_BYTES, film_format

MAX_FRAMES: Final = 7200  # of a film of ours: two minutes at 60 a second
MAX_PIXELS: Final = 2**24  # of a frame: 4096 x 4096
BUSY: Final = 2.0  # seconds of the clock for a second of processor time, where others want the processors too
MAX_WORDS: Final = 65_536  # bytes of a message that is no frame

Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]
Source = Path | bytes | IO[bytes]  # a file's place, its bytes, or an open one on the disk
Said = TypeVar("Said", bound="_Checked")


class _Checked(BaseModel):
    """What a decoder says: checked, for its film may have taken it over."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Head(_Checked):
    size: tuple[Side, Side]
    channels: Literal[3, 4]


class Facts(_Checked):
    """What a film is, as counted and not as it says."""

    frames: int = Field(ge=1)
    fps: float | None = Field(gt=0, description="Frames a second, on average; null for a zip, which does not say.")
    size: tuple[Side, Side] = Field(description="Width and height, pixels.")
    lossless: bool = Field(description="Whether its pixels are those it was written with.")


def facts(film: Source, *, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS) -> Facts:
    """Frames, rate and size of a film.

    Raises InvalidRequest for one that is not of our kinds, damaged, of more frames, or of more pixels in one.
    """
    with _decoder("facts", film, max_frames, max_pixels) as answers:
        kind, body = answers.message(MAX_WORDS)
        if kind != b"E":
            raise _unreadable("its decoder talks nonsense")
        return _parsed(Facts, body)


def decoded_frames(film: Source, *, max_frames: int = MAX_FRAMES, max_pixels: int = MAX_PIXELS) -> Iterator[Pixels]:
    """The frames of a film, uint8 [H, W, 3], or [H, W, 4] where some of one is transparent; one in memory at a time.

    Raises InvalidRequest as `facts` does, at the latest in place of the end: only a film that was read to it is whole.
    """
    with _decoder("frames", film, max_frames, max_pixels) as answers:
        kind, body = answers.message(MAX_WORDS)
        if kind != b"H":
            raise _unreadable("its decoder talks nonsense")
        head = _parsed(_Head, body)
        width, height = head.size
        frame_bytes = width * height * head.channels
        if width * height > max_pixels:
            raise _unreadable("its decoder talks nonsense")
        for frame in range(max_frames + 1):
            answers.allow(frame, head.size)
            kind, body = answers.message(max(frame_bytes, MAX_WORDS))
            if kind == b"E" and _parsed(Facts, body).frames == frame:
                return
            if kind != b"F" or len(body) != frame_bytes or frame == max_frames:
                raise _unreadable("its decoder talks nonsense")
            pixels = np.frombuffer(body, dtype=np.uint8).reshape(height, width, head.channels)
            yield pixels if head.channels == 4 and (pixels[:, :, 3] < 255).any() else pixels[:, :, :3]


class _Answers:
    """The messages of a decoder, which it must send in time: what is waited for it is counted, and nothing else."""

    def __init__(self, pipe: IO[bytes], max_pixels: int) -> None:
        self._pipe = pipe.fileno()
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        self._waited = 0.0  # seconds
        self._allowed = 0.0  # seconds
        self.allow(0, (max_pixels, 1))

    def allow(self, frames: int, size: tuple[int, int]) -> None:
        """Let it take as long as so many frames may."""
        self._allowed = BUSY * decoder.allowed_seconds(frames, size)

    def message(self, max_bytes: int) -> tuple[bytes, bytearray]:
        """The kind and the body of the next message. Raises InvalidRequest where none comes, or that it is refused."""
        kind, length = decoder.MESSAGE.unpack(self._read(decoder.MESSAGE.size))
        if length > max_bytes:
            raise _unreadable("its decoder talks nonsense")
        body = self._read(length)
        if kind == b"X":
            raise _unreadable(body[:500].decode("ascii", "replace"))
        return kind, body

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            started = time.monotonic()
            ready = self._poll.poll(max(0, int((self._allowed - self._waited) * 1000)))
            self._waited += time.monotonic() - started
            if not ready:
                raise _unreadable("it takes too long to decode")
            count = os.readv(self._pipe, [view[filled:]])
            if not count:
                raise _unreadable("it takes too much to decode, or breaks its decoder")
            filled += count
        return data


@contextmanager
def _decoder(wanted: Literal["facts", "frames"], film: Source, max_frames: int, max_pixels: int) -> Iterator[_Answers]:
    """A decoder process at work on a film, and its end."""
    with _opened(film) as file:
        container = film_format(os.pread(file.fileno(), HEAD_BYTES, 0))  # the place in the file is the decoder's
        if container is None:
            raise _unreadable("it is no mp4, WebM, animated WebP, GIF or zip")
        command = [sys.executable, "-I", decoder.__file__, wanted, container, str(max_frames), str(max_pixels)]
        process = subprocess.Popen(
            command,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LC_ALL": "C.UTF-8"},
            cwd=Path(decoder.__file__).parent,
        )
    try:
        yield _Answers(cast("IO[bytes]", process.stdout), max_pixels)
    finally:
        process.kill()
        process.communicate()


def _opened(film: Source) -> IO[bytes]:
    """The film as a file without a buffer: filling or emptying one would move the place where the decoder reads."""
    if isinstance(film, Path):
        return film.open("rb", buffering=0)
    if not isinstance(film, bytes):
        film.seek(0)
        return os.fdopen(os.dup(film.fileno()), "rb", buffering=0)
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 as a context of its own
    rest = memoryview(film)
    while rest:
        rest = rest[file.write(rest) :]
    return file


def _parsed(kind: type[Said], body: bytearray) -> Said:
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        raise _unreadable("its decoder talks nonsense") from error


def _unreadable(reason: str) -> InvalidRequest:
    message = f"The film cannot be read: {reason}. Send an mp4, webm, webp, gif or zip as Ganvas made it."
    return InvalidRequest(message, code="film_invalid", param="file")
