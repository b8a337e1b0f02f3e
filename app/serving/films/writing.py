"""Frames to a film, one after the other, in any container; the file is whole or is not there."""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from app.core.errors import InvalidRequest
from app.serving.encode import Pixels
from app.serving.films.animated_webp import LONGEST_WEBP_SIDE, AnimatedWebp
from app.serving.films.archive import Archive
from app.serving.films.containers import FilmFormat
from app.serving.films.gif import FASTEST_GIF, Gif
from app.serving.films.settings import FilmSettings, nothing

MAX_FPS: Final = 60


class Container(Protocol):
    """A file that frames are added to."""

    def add(self, pixels: Pixels) -> None:
        """Append a frame, [H, W, C]."""

    def close(self) -> None:
        """Complete the file."""

    def abandon(self) -> None:
        """Let go of the file as it is."""


class FilmWriter:
    """Takes the frames of one film. The file is at its path when it is closed; after an error it never is."""

    def __init__(self, path: Path, film_format: FilmFormat, settings: FilmSettings) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._size = settings.size
        self._shape: tuple[int, ...] | None = None
        try:
            self._container: Container | None = _container(self._part, film_format, settings)
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add(self, pixels: Pixels) -> None:
        """Append a frame, uint8 [H, W, C] of the film's size: grey, grey and alpha, RGB or RGBA, all frames alike.

        Raises InvalidRequest where the container cannot hold its alpha without loss and shall lose nothing.
        """
        if self._container is None:
            raise ValueError("The film is closed.")
        shape = self._shape = self._shape or pixels.shape
        if pixels.shape != shape or shape[:2] != self._size[::-1] or not 1 <= shape[2] <= 4:
            raise ValueError(f"A frame of {pixels.shape} in a film of {self._size} that began with {shape}.")
        self._container.add(pixels)

    def close(self) -> None:
        """Complete the file and put it at its path; once closed, nothing more. A film has a frame at least."""
        if self._container is None:
            return
        if self._shape is None:
            self.discard()
            raise ValueError("A film without frames.")
        try:
            self._container.close()
            self._part.replace(self._path)
        except BaseException:
            self.discard()
            raise
        self._container = None

    def discard(self) -> None:
        """Leave nothing behind."""
        container, self._container = self._container, None
        if container is not None:
            container.abandon()
            self._part.unlink(missing_ok=True)


def open_film(
    path: Path,
    film_format: FilmFormat,
    *,
    size: tuple[int, int],
    fps: int,
    recipe: str | None,
    lossless: bool = False,
    loop: bool = True,
    fine: bool = False,
    heed: Callable[[], None] = nothing,
) -> FilmWriter:
    """A writer of a film at `path`; the same frames and arguments give the same bytes on one machine.

    size: width and height, pixels. fps: frames a second, 1 to 60.
    recipe: its canonical form; None leaves it out. The mark of AI-made media is there in any case.
    lossless: exactly the frames' pixels; the frames of a zip are PNGs and always that, a GIF never is.
    loop: of WebP and GIF, whether they start again for ever; of the others their player decides.
    fine: of mp4 and webm, coded with next to no loss: what the first frame, which alone is coded for itself, has better
    or worse than the others cannot be seen then. Four times the bytes.
    heed: called between the frames of a GIF, which is written when it is closed; what it raises ends that.
    Raises InvalidRequest for what the container cannot hold.
    """
    settings = FilmSettings(size, fps, recipe, lossless, loop, fine, heed)
    check_film(film_format, settings)
    return FilmWriter(path, film_format, settings)


def _container(path: Path, film_format: FilmFormat, settings: FilmSettings) -> Container:
    if film_format in ("mp4", "webm"):
        from app.serving.films.video import Video  # FFmpeg's libraries, which only those who write these need

        return Video(path, film_format, settings)
    if film_format == "webp":
        return AnimatedWebp(path, settings)
    return Gif(path, settings) if film_format == "gif" else Archive(path, settings)


def check_film(film_format: FilmFormat, settings: FilmSettings) -> None:
    """InvalidRequest for what this container cannot hold."""
    width, height = settings.size
    if not 1 <= settings.fps <= MAX_FPS:
        raise InvalidRequest(f"fps is {settings.fps}; give 1 to {MAX_FPS}.", param="fps")
    if film_format == "gif" and settings.fps > FASTEST_GIF:
        message = f"Browsers slow down a GIF of more than {FASTEST_GIF} frames a second; fps is {settings.fps}."
        raise InvalidRequest(message, param="fps")
    if film_format == "gif" and settings.lossless:
        message = "A GIF has 256 colours and so cannot be lossless; ask for mp4, webm, webp or zip."
        raise InvalidRequest(message, param="lossless")
    if film_format in ("mp4", "webm") and not settings.lossless and (width % 2 or height % 2):
        message = f"{film_format} needs even sides, and these are {width}x{height}; give others, or ask for lossless."
        raise InvalidRequest(message, param="size")
    if film_format == "webp" and max(width, height) > LONGEST_WEBP_SIDE:
        message = f"A WebP has sides of at most {LONGEST_WEBP_SIDE:,} pixels, and these are {width}x{height}."
        raise InvalidRequest(message, param="size")
