"""What a file claims to show, painted again from a thread of its own, in turns with everybody who wants pictures."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from threading import Event
from typing import Any, Final, TypeVar

from torch import Tensor

from app.core.errors import Unavailable
from app.serving.batcher import TIMEOUT_SECONDS, Batcher
from app.serving.encode import Pixels, resample
from app.serving.film import FilmRecipe
from app.serving.frames import Place, frames
from app.serving.paint import LoadedGenerator
from app.serving.recipe import Recipe

Thing = TypeVar("Thing")

TOGETHER: Final = 16  # pictures asked for at once; two such groups are under way
ANSWER_SECONDS: Final = TIMEOUT_SECONDS + 30  # a pass begins within the first, or is refused


class Repainter:
    """The painters of one device, for one thread that is not the event loop's. Whoever waits for it may stop it."""

    def __init__(self, batcher: Batcher, loop: asyncio.AbstractEventLoop, caller: str) -> None:
        self._batcher = batcher
        self._loop = loop
        self._caller = caller
        self._stopped = Event()

    def stop(self) -> None:
        """From any thread: no more pictures are wanted."""
        self._stopped.set()

    def pictures(self, recipes: Sequence[Recipe]) -> Iterator[Pixels]:
        """The pictures of recipes, in order, each of its recipe's size. Raises as Painter.picture() does."""
        for recipe, pixels in self._in_order((group, ()) for group in _groups(recipes)):
            yield resample(pixels, recipe.size)

    def frames(self, film: FilmRecipe) -> Iterator[Pixels]:
        """The frames of a film, or the one of a sheet, [H, W, C] of frames.frame_size; raises as pictures() does."""

        def load(sha256: str) -> LoadedGenerator:
            loaded = self._batcher.loader.get(sha256, film.dtype)
            for point in film.keyframes:
                loaded.check(point)
            return loaded

        def paint(loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
            carrier = _carrier(film, loaded.sha256)
            groups = (([carrier] * len(group), tuple(place(group))) for group in _groups(numbers))
            for _, pixels in self._in_order(groups):
                yield pixels

        yield from frames(film, load, paint, range(film.frames))

    def _in_order(self, groups: Iterable[tuple[Sequence[Recipe], Sequence[Tensor]]]) -> Iterator[tuple[Recipe, Pixels]]:
        """Each recipe with what was painted for it; the next group is asked for before the last one is given."""
        waiting: deque[tuple[Sequence[Recipe], Future[list[Any]]]] = deque()
        try:
            for recipes, ws in groups:
                waiting.append((recipes, self._ask(recipes, ws)))
                if len(waiting) > 1:
                    yield from self._next(*waiting.popleft())
            while waiting:
                yield from self._next(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _ask(self, recipes: Sequence[Recipe], ws: Sequence[Tensor]) -> Future[list[Any]]:
        if self._stopped.is_set():
            raise CancelledError
        asked = self._batcher.submit(recipes, caller=self._caller, ws=ws)
        return asyncio.run_coroutine_threadsafe(asked, self._loop)

    def _next(self, recipes: Sequence[Recipe], future: Future[list[Any]]) -> Iterator[tuple[Recipe, Pixels]]:
        try:
            painted = future.result(ANSWER_SECONDS)
        except TimeoutError as error:
            raise Unavailable("Nobody paints any more.") from error
        yield from zip(recipes, painted, strict=True)


def _groups(things: Sequence[Thing]) -> Iterator[Sequence[Thing]]:
    return (things[start : start + TOGETHER] for start in range(0, len(things), TOGETHER))


def _carrier(film: FilmRecipe, checkpoint: str) -> Recipe:
    """What the line and the metrics know of a frame of a film."""
    return Recipe(model=film.model, checkpoint=checkpoint, seed=0, size=film.size, device=film.device, dtype=film.dtype)
