"""What the writers of all containers are told about a film."""

from collections.abc import Callable
from dataclasses import dataclass


def nothing() -> None:
    """What is done between frames where nobody asks for anything."""


@dataclass(frozen=True)
class FilmSettings:
    """All but the frames."""

    size: tuple[int, int]  # width, height, pixels
    fps: int
    recipe: str | None  # its canonical form
    lossless: bool
    loop: bool
    fine: bool = False
    heed: Callable[[], None] = nothing  # called between frames where a file is completed frame by frame

    def duration(self, frame: int, units: int) -> int:
        """How long a frame is shown, counted from 0, in so many units a second: rounded so that no errors add up."""
        start, end = ((2 * units * place + self.fps) // (2 * self.fps) for place in (frame, frame + 1))
        return end - start
