"""The pictures of a loop on the disk, and how its frames follow each other, as painted and as coded."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, ImageSequence

from app.serving.encode import Pixels
from app.serving.films.containers import FilmFormat


class Steps:
    """How far each frame of a loop is from the one before, the first from the last; mean difference, levels of 255."""

    def __init__(self) -> None:
        self._first: Pixels | None = None
        self._last: Pixels | None = None
        self._steps: list[float] = []  # to each frame but the first

    def add(self, frame: Pixels) -> None:
        """One more frame, [H, W, C]."""
        if self._last is None:
            self._first = frame
        else:
            self._steps.append(difference(self._last, frame))
        self._last = frame

    def quietest(self) -> int:
        """The frame that is nearest to the one before."""
        steps = [self._seam(), *self._steps]
        return steps.index(min(steps))

    def closes(self) -> bool:
        """Whether the step from the last to the first is no larger than the median of those between neighbours."""
        return not self._steps or self._seam() <= float(np.median(self._steps))

    def _seam(self) -> float:
        if self._first is None or self._last is None:
            raise ValueError("A loop without frames.")
        return difference(self._last, self._first)


class Reel:
    """Pictures, [H, W, C], as they come, to be read again in any order."""

    def __init__(self, place: Path) -> None:
        self._file = place.open("xb+")
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, picture: Pixels) -> None:
        """Append a picture; all have one shape."""
        self._shape = picture.shape
        self._file.write(picture.tobytes())

    def __getitem__(self, number: int) -> Pixels:
        size = int(np.prod(self._shape))
        self._file.seek(number * size)
        return np.frombuffer(self._file.read(size), dtype=np.uint8).reshape(self._shape)


def coded_frames(film: Path, film_format: FilmFormat) -> Iterator[Pixels]:
    """The frames of a film of our own, but a zip, as a player shows them, [H, W, 3]."""
    if film_format in {"mp4", "webm"}:
        import av

        with av.open(str(film)) as file:
            for coded in file.decode(video=0):
                yield coded.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        return
    with Image.open(film) as file:
        for shown in ImageSequence.Iterator(file):
            yield np.asarray(shown.convert("RGB"))


def difference(one: Pixels, other: Pixels) -> float:
    """Mean difference of two pictures, in levels of 255."""
    return float((np.maximum(one, other) - np.minimum(one, other)).mean())
