"""Loops, walks and growths: frames painted, put in order, and written to a film.

Where a loop starts. Every loop closes: its last frame lies as far from its first, along the way, as any frame from its
neighbour. But a picture does not change evenly along the way, and where a film starts again is where an eye waits for a
jump. So a loop whose phase nobody gave begins where its picture moves least: all of it is painted first, once, at the
size of the network, and kept on the disk while neighbours are compared; then it is written from the quietest place on.
The phase found stands in the recipe, so that whoever draws that begins there too.

A container that loses some of a picture may undo this: a video codes its first frame for itself, and all others by
what changed since, so that where hardly anything moves the first looks unlike the last. So what was written of a loop
is read again, and where the step from last to first is larger than half of those between neighbours it is written once
more: a video so finely that the difference is gone, a WebP or a GIF from where its own frames are nearest.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from app.core import jobs
from app.serving.encode import Pixels, resample
from app.serving.film import FilmOrder, FilmRecipe
from app.serving.films.containers import MEDIA_TYPES, FilmFormat
from app.serving.films.writing import open_film
from app.serving.frames import Place, checkpoints, frame_size, frames
from app.serving.paint import LoadedGenerator
from worker.rendering.engine import Engine
from worker.rendering.progress import Progress
from worker.rendering.publish import Drawn, Workplace, publish, require_weights
from worker.rendering.reel import Reel, Steps, coded_frames

FILM_NAME: Final = "film"
REEL_NAME: Final = "reel"


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Draw the film of a job, and end the job. Raises Stopped, with nothing left behind."""
    order = FilmOrder.model_validate(claim.request)
    require_weights(workshop.db, order.film)
    with ExitStack() as stack:
        folder = stack.enter_context(workshop.storage.scratch())
        engine = stack.enter_context(Engine(workshop.settings, workshop.storage, claim.should_stop))
        folder.mkdir()
        film = order.film.model_copy(update=engine.runtime._asdict())
        pictures = film.frames if film.kind != "growth" else len(checkpoints(film)) * film.pictures
        progress = Progress(workshop.storage, claim, pictures + film.frames)
        drawing = Drawing(engine, progress, film, pictures)
        if film.kind == "loop":
            drawing.record(stack.enter_context(Reel(folder / REEL_NAME)), choose_phase=order.choose_phase)
        drawn = drawing.write(folder / FILM_NAME, order)
        publish(workshop, claim, progress, drawn)


class Drawing:
    """A film in the making."""

    def __init__(self, engine: Engine, progress: Progress, film: FilmRecipe, pictures: int) -> None:
        self.film = film
        self._pictures = pictures
        self._engine = engine
        self._progress = progress
        self._painted = 0
        self._reel: Reel | None = None

    def record(self, reel: Reel, *, choose_phase: bool) -> None:
        """Paint a whole loop, once; choose_phase: and let the film begin where it moves least."""
        side = self._engine.load(self.film.checkpoint).generator.config.resolution
        whole, steps = self.film.model_copy(update={"phase": 0, "size": (side, side)}), Steps()
        for picture in frames(whole, self._engine.load, self._paint, range(whole.frames)):
            reel.add(picture)
            steps.add(picture)
        self._reel = reel
        if choose_phase:
            self._begin_at(steps.quietest())

    def write(self, place: Path, order: FilmOrder) -> Drawn:
        """All frames to a file, which closes where it is a loop."""
        film_format = order.format
        if film_format == "png":
            raise ValueError("A film is no png.")
        first = self._write(place, film_format, order)
        if self._reel is not None and film_format != "zip" and not order.lossless:
            steps = Steps()
            for frame in coded_frames(place, film_format):
                self._engine.check()
                steps.add(frame)
            if not steps.closes() and film_format in {"mp4", "webm"}:
                first = self._write(place, film_format, order, fine=True)
            elif not steps.closes() and order.choose_phase:
                self._begin_at((self.film.phase + steps.quietest()) % self.film.frames)
                first = self._write(place, film_format, order)
        told = {"frames": self.film.frames, "fps": self.film.fps}
        size = frame_size(self.film)
        return Drawn(place, film_format, MEDIA_TYPES[film_format], size, self.film, order.keep, first, told)

    def _write(self, place: Path, film_format: FilmFormat, order: FilmOrder, *, fine: bool = False) -> Pixels:
        """All frames to a file; the first one."""
        film = self.film
        shown: list[Pixels] = []
        recipe = film.canonical_json() if order.metadata == "full" else None
        with open_film(
            place,
            film_format,
            size=frame_size(film),
            fps=film.fps or 1,
            recipe=recipe,
            lossless=order.lossless,
            fine=fine,
            heed=self._engine.check,
        ) as writer:
            for number, frame in enumerate(self._frames(), start=1):
                shown = shown or [frame]
                writer.add(frame)
                if self._progress.step():
                    self._progress.tell(f"Wrote {number} of {film.frames} frames.", frame)
        return shown[0]

    def _begin_at(self, phase: int) -> None:
        self.film = self.film.model_copy(update={"phase": phase})

    def _frames(self) -> Iterator[Pixels]:
        if self._reel is None:
            yield from frames(self.film, self._engine.load, self._paint, range(self.film.frames))
            return
        for number in range(self.film.frames):
            yield resample(self._reel[(number + self.film.phase) % self.film.frames], self.film.size)

    def _paint(self, loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
        for picture in self._engine.pictures(loaded, numbers, place):
            self._painted += 1
            if self._progress.step():
                self._progress.tell(f"Painted {self._painted} of {self._pictures} pictures.", picture)
            yield picture
