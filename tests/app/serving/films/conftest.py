"""Films of a dozen small frames, in every container."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from app.serving.encode import Pixels
from app.serving.films.containers import FilmFormat
from app.serving.films.writing import open_film

WIDTH, HEIGHT, FRAMES, FPS = 48, 32, 12, 24
RECIPE = '{"checkpoint":"' + 64 * "a" + '","keyframes":[{"prompt":"a \\"red\\" caf\\u00e9","seed":7}],"version":1}'
LOSSLESS: list[FilmFormat] = ["mp4", "webm", "webp", "zip"]
LOSSY: list[FilmFormat] = ["mp4", "webm", "webp", "gif"]
KINDS = [(film_format, True) for film_format in LOSSLESS] + [(film_format, False) for film_format in LOSSY]

WriteFilm = Callable[..., Path]
AFilm = Callable[..., Path]


def make_frames(count: int = FRAMES, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> list[Pixels]:
    """A loop: waves of each channel that end where they began, and a little noise that stands still."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.RandomState(0).randint(0, 9, (height, width, channels))
    waves = []
    for frame in range(count):
        turn = 2 * np.pi * frame / count
        channel = [np.sin(x / (9 + c) + turn) * np.cos(y / (7 + c) + c - turn) for c in range(channels)]
        waves.append((120 + 110 * np.stack(channel, axis=2) + noise).astype(np.uint8))
    return waves


@pytest.fixture(scope="session")
def a_film(tmp_path_factory: pytest.TempPathFactory) -> AFilm:
    """The usual dozen frames in a container, lossless or not; written once, so leave it as it is."""
    folder = tmp_path_factory.mktemp("films")

    @cache
    def write(film_format: FilmFormat, lossless: bool = False) -> Path:
        path = folder / f"{'lossless' if lossless else 'lossy'}.{film_format}"
        with open_film(path, film_format, size=(WIDTH, HEIGHT), fps=FPS, recipe=RECIPE, lossless=lossless) as film:
            for pixels in make_frames():
                film.add(pixels)
        return path

    return write


@pytest.fixture
def write_film(tmp_path: Path) -> WriteFilm:
    """Write the frames, a dozen unless others are given, in a container; returns the file."""

    def write(
        film_format: FilmFormat,
        lossless: bool = False,
        frames: Iterable[Pixels] | None = None,
        *,
        name: str = "film",
        fps: int = FPS,
        recipe: str | None = RECIPE,
        loop: bool = True,
    ) -> Path:
        pictures = list(make_frames() if frames is None else frames)
        size = pictures[0].shape[1], pictures[0].shape[0]
        path = tmp_path / f"{name}.{film_format}"
        with open_film(path, film_format, size=size, fps=fps, recipe=recipe, lossless=lossless, loop=loop) as film:
            for pixels in pictures:
                film.add(pixels)
        return path

    return write
