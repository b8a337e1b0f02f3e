"""A film as a zip of numbered PNGs, with its recipe beside them."""

from pathlib import Path
from typing import Final
from zipfile import ZipFile, ZipInfo

from app.serving.encode import Pixels, marked_png
from app.serving.films.settings import FilmSettings

RECIPE_NAME: Final = "recipe.json"
FRAME_NAME: Final = "{:06d}.png"
READABLE: Final = 0o644 << 16  # a file's mode as zip has it


class Archive:
    """Stored, not packed: PNGs are packed already, and a recipe in plain sight is found without unpacking.

    The comment holds the recipe too, for programs that pack the files again; it has room for the longest.
    """

    def __init__(self, path: Path, settings: FilmSettings) -> None:
        self._zip = ZipFile(path, "w")
        self._frames = 0
        if settings.recipe is not None:
            recipe = settings.recipe.encode()
            self._zip.comment = recipe
            self._write(RECIPE_NAME, recipe)

    def add(self, pixels: Pixels) -> None:
        self._write(FRAME_NAME.format(self._frames), marked_png(pixels))
        self._frames += 1

    def _write(self, name: str, data: bytes) -> None:
        entry = ZipInfo(name)  # of 1980, so that equal films are equal bytes
        entry.external_attr = READABLE
        self._zip.writestr(entry, data)

    def close(self) -> None:
        self._zip.close()

    def abandon(self) -> None:
        self._zip.close()
