"""Live: a performance paints its newest recipe and nothing older, once for all who watch it.

No frame ever queues. A viewer says when it can take one; only then is the newest recipe painted, unless the picture
there is is new to it, and the picture made a file, once for all who want that kind. Whoever is slow misses frames.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from app.core.errors import Busy, GanvasError, Unavailable
from app.serving.recipe import Recipe
from app.serving.service import Asker, FileKind, Painter

log = structlog.get_logger(__name__)

MAX_FPS: Final = 60  # of one viewer: what screens show
MAX_KINDS: Final = 8  # of file at once in a performance: each is one more to make of every picture
ENCODERS: Final = 4  # threads that make files, so that a large kind does not keep the small ones waiting
MAX_QUESTIONS: Final = 64  # kept of a viewer that takes no frames; at most one comes to it with each pass
MAX_REFUSALS: Final = 16  # kept for a viewer that does not fetch them; then the oldest go
RETRY_SECONDS: Final = 1.0  # at most so long until a pass is asked for again that found no room

Said = dict[str, Any]  # all that the performers have said, merged
Id = str | int


class Kind(NamedTuple):
    """Which file a viewer wants of every picture."""

    size: tuple[int, int] | None = None  # width and height, pixels; None: the model's own
    file: FileKind = FileKind("webp", metadata="minimal")


class Frame(NamedTuple):
    """What a viewer shows next."""

    file: bytes
    recipe: Recipe
    id: Id | None = None  # of the newest message of this viewer that it shows, once
    passes: int = 0  # that ran from that message's arrival to this frame, the one it found running among them


class Refusal(NamedTuple):
    """Why a message of this viewer comes to nothing."""

    error: GanvasError
    id: Id | None


class _Wish(NamedTuple):
    """What shall be painted."""

    version: int  # the number of the message that it came with
    recipe: Recipe
    said: Said


class _Picture(NamedTuple):
    """What was painted."""

    wish: _Wish
    number: int  # of the pass
    pixels: NDArray[np.uint8]  # [R, R, C]


class _File(NamedTuple):
    """A picture as one kind of file."""

    number: int  # of the pass
    data: bytes
    recipe: Recipe


class _Question(NamedTuple):
    """A message of a viewer, for as long as no frame shows what came of it."""

    version: int
    passes: int  # that were over when it came
    id: Id | None


class Viewer:
    """One connection to a performance, be it to perform or only to watch."""

    def __init__(self, performance: "Performance", kind: Kind) -> None:
        self.performance = performance
        self.kind = kind
        self._questions: deque[_Question] = deque(maxlen=MAX_QUESTIONS)  # versions rise
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)
        self._frame: Frame | None = None
        self._seen = 0  # the number of the pass of its latest frame
        self._due = 0.0  # no frame before, in the event loop's time
        self._waits = False  # in next()
        self._wake = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether it can take a frame now."""
        return self._waits and self._frame is None

    @property
    def asks(self) -> bool:
        """Whether a message of it is still to be shown."""
        return bool(self._questions)

    def say(self, recipe: Recipe, said: Said, id_: Id | None = None) -> None:
        """Perform: this recipe is the newest; said is what led to it, and what the next message is merged into."""
        question = _Question(*self.performance.wish(recipe, said), id_)
        if self._questions and self._questions[-1].version > self.performance.begun:  # one pass will show both
            overtaken = self._questions.pop()
            question = question if id_ is not None else overtaken._replace(version=question.version)
        self._questions.append(question)

    def want(self, kind: Kind, *, again: bool = True) -> None:
        """Other files from now on; again: at once one of what is on screen. Busy where the performance has too many."""
        before = self.kind
        if kind != before:
            self.performance.admit(kind, instead_of=self)
            self.kind = kind
            self._seen = 0 if again else self._seen
            self.performance.forget(before)
            self.performance.stir()

    def refuse(self, error: GanvasError, id_: Id | None = None) -> None:
        """Let next() tell of a message that comes to nothing."""
        self._refusals.append(Refusal(error, id_))
        self._wake.set()

    async def next(self) -> Frame | Refusal:
        """The newest frame, as soon as there is one that this viewer has not seen; refusals go first.

        Until it is called again no frame is made for this viewer.
        """
        now = asyncio.get_running_loop().time
        await asyncio.sleep(max(0.0, self._due - now()))
        self._due = max(self._due + 1 / MAX_FPS, now())
        self._waits = True
        try:
            while True:
                if self._refusals:
                    return self._refusals.popleft()
                if self._frame is not None:
                    frame, self._frame = self._frame, None
                    return frame
                self._wake.clear()
                self.performance.stir()
                await self._wake.wait()
        finally:
            self._waits = False

    def lacks(self, picture: _Picture) -> bool:
        """Whether this picture is new to it, or answers a message of it."""
        return picture.number > self._seen or (
            bool(self._questions) and self._questions[0].version <= picture.wish.version
        )

    def show(self, picture: _Picture, file: _File) -> None:
        """The frame that next() gives."""
        answered = self._pop(picture.wish.version)
        passes = 0 if answered is None else picture.number - answered.passes
        self._seen = picture.number
        self._frame = Frame(file.data, file.recipe, None if answered is None else answered.id, passes)
        self._wake.set()

    def fail(self, version: int, error: GanvasError) -> None:
        """What was said up to this version cannot be painted."""
        failed = self._pop(version)
        if failed is not None:
            self.refuse(error, failed.id)

    def skip(self, picture: _Picture, error: GanvasError) -> None:
        """This picture cannot be made its kind of file."""
        self._seen = picture.number
        self.fail(picture.wish.version, error)

    def _pop(self, version: int) -> _Question | None:
        """The newest message up to this version; it and those before are settled. One with an id goes first."""
        newest = None
        while self._questions and self._questions[0].version <= version:
            question = self._questions.popleft()
            newest = question if newest is None or question.id is not None else newest
        return newest


class Performance:
    """What is painted for some viewers, and by whose words."""

    def __init__(self, name: str, painter: Painter, encoders: ThreadPoolExecutor) -> None:
        self.said: Said = {}
        self.speaking = asyncio.Lock()  # held from reading `said` to the wish that comes of it
        self.viewers: list[Viewer] = []
        self._painter = painter
        self._encoders = encoders
        self._asker = Asker(f"live {name}")
        self._wish: _Wish | None = None
        self._picture: _Picture | None = None
        self._begun = 0  # the version of the newest wish whose pass has begun
        self._settled = 0  # the version of the newest wish that was painted or failed
        self._passes = 0  # begun
        self._painting: asyncio.Task[None] | None = None
        self._files: dict[Kind, _File] = {}
        self._encoding: dict[Kind, asyncio.Task[None]] = {}
        self._stirred: asyncio.Handle | None = None

    def wish(self, recipe: Recipe, said: Said) -> tuple[int, int]:
        """Paint this next; its version, and how many passes are over."""
        version = 1 if self._wish is None else self._wish.version + 1
        self._wish = _Wish(version, recipe, said)
        self.said = said
        self.stir()
        return version, self._passes - (self._painting is not None)

    @property
    def begun(self) -> int:
        """The version of the newest wish whose pass has begun."""
        return self._begun

    def admit(self, kind: Kind, instead_of: Viewer | None = None) -> None:
        """Busy where this would be one kind of file too many."""
        kinds = {viewer.kind for viewer in self.viewers if viewer is not instead_of}
        if kind not in kinds and len(kinds) >= MAX_KINDS:
            message = f"This performance is made into {MAX_KINDS} kinds of file already; take one of these."
            raise Busy(message, retry_after=RETRY_SECONDS, code="live_full")

    def forget(self, kind: Kind) -> None:
        """Drop the file of a kind that nobody wants any longer."""
        if all(viewer.kind != kind for viewer in self.viewers):
            self._files.pop(kind, None)

    def stir(self) -> None:
        """Somebody wished, or waits, or something is done: see what can be done next, once for all who say so now."""
        if self._stirred is None:
            self._stirred = asyncio.get_running_loop().call_soon(self._step)

    async def close(self) -> None:
        """Stop painting."""
        if self._stirred is not None:
            self._stirred.cancel()
        tasks = [*self._encoding.values(), *([] if self._painting is None else [self._painting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _step(self) -> None:
        self._stirred = None
        wish, picture = self._wish, self._picture
        if wish is None:
            return
        idle = self._painting is None and wish.version > self._settled
        if idle and picture is not None and picture.wish.recipe == wish.recipe:
            picture, idle = self._settle(picture._replace(wish=wish)), False
        for viewer in sorted(self.viewers, key=lambda viewer: not viewer.asks):  # players see first what they do
            if not viewer.is_ready:
                continue
            if picture is not None and viewer.lacks(picture):
                self._give(viewer, picture)
            elif idle:
                idle = False
                self._passes += 1
                self._begun = wish.version
                self._painting = asyncio.create_task(self._paint(wish))

    async def _paint(self, wish: _Wish) -> None:
        """One pass. Messages that come meanwhile are merged, and painted together by the next one."""
        try:
            (pixels,) = await self._painter.pixels([wish.recipe], self._asker)
        except (Busy, Unavailable) as error:
            await asyncio.sleep(min(getattr(error, "retry_after", RETRY_SECONDS), RETRY_SECONDS))
            self._passes -= 1  # there was none
        except GanvasError as error:
            self._fail(wish, error)
        except Exception:
            log.exception("live_pass_failed", performance=self._asker.name)
            self._fail(wish, GanvasError("This picture could not be painted; the log has the reason."))
        else:
            self._settle(_Picture(wish, self._passes, pixels))
        finally:
            self._painting = None
        self.stir()

    def _settle(self, picture: _Picture) -> _Picture:
        self._picture = picture
        self._begun = self._settled = picture.wish.version
        return picture

    def _fail(self, wish: _Wish, error: GanvasError) -> None:
        """Tell those who asked for it, and go back to what could be painted: the next message starts from there."""
        self._settled = wish.version
        for viewer in self.viewers:
            viewer.fail(wish.version, error)
        if self._wish is wish:
            self.said = {} if self._picture is None else self._picture.wish.said

    def _give(self, viewer: Viewer, picture: _Picture) -> None:
        kind = viewer.kind
        file = self._files.get(kind)
        if file is not None and file.number == picture.number:
            viewer.show(picture, file)
            self._painter.meters.shown()
        elif kind not in self._encoding:
            self._encoding[kind] = asyncio.create_task(self._encode(kind, picture))

    async def _encode(self, kind: Kind, picture: _Picture) -> None:
        recipe = picture.wish.recipe
        if kind.size is not None:
            recipe = recipe.model_copy(update={"size": kind.size})
        run = asyncio.get_running_loop().run_in_executor
        try:
            data = await run(self._encoders, self._painter.encode, kind.file, recipe, picture.pixels)
            self._files[kind] = _File(picture.number, data, recipe)
        except Exception:
            log.exception("live_file_failed", performance=self._asker.name)
            error = GanvasError("This picture could not be made a file; the log has the reason.")
            for viewer in self.viewers:
                if viewer.kind == kind:
                    viewer.skip(picture, error)
        finally:
            del self._encoding[kind]
        self.forget(kind)
        self.stir()


class Stage:
    """All performances of a studio. It belongs to one event loop."""

    def __init__(self, painter: Painter, max_viewers: int) -> None:
        self._painter = painter
        self._max_viewers = max_viewers
        self._performances: dict[str, Performance] = {}
        self._encoders = ThreadPoolExecutor(ENCODERS, "live")
        painter.meters.watch("ganvas_live_viewers", "Live connections.", self.viewers)
        painter.meters.watch("ganvas_live_performances", "Live performances.", lambda: len(self._performances))

    def viewers(self) -> int:
        """Connections to all performances, to perform or to watch."""
        return sum(len(performance.viewers) for performance in self._performances.values())

    @asynccontextmanager
    async def joined(self, name: str, kind: Kind = Kind()) -> AsyncIterator[Viewer]:  # noqa: B008 - it cannot be changed
        """A viewer of the performance of this name, which begins with its first viewer and ends with its last.

        Busy where no more may come.
        """
        if self.viewers() >= self._max_viewers:
            message = f"{self._max_viewers} live connections are open, and no more may be."
            raise Busy(message, retry_after=RETRY_SECONDS, code="live_full")
        performance = self._performances.get(name)
        if performance is None:
            performance = Performance(name, self._painter, self._encoders)
        performance.admit(kind)
        self._performances[name] = performance
        viewer = Viewer(performance, kind)
        performance.viewers.append(viewer)
        try:
            yield viewer
        finally:
            performance.viewers.remove(viewer)
            performance.forget(viewer.kind)
            if not performance.viewers and self._performances.get(name) is performance:
                del self._performances[name]
                await performance.close()

    async def close(self) -> None:
        """End all performances."""
        performances = list(self._performances.values())
        self._performances.clear()
        for performance in performances:
            await performance.close()
        await asyncio.to_thread(self._encoders.shutdown)
