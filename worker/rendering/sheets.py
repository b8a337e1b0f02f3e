"""Sheets: many pictures in rows, of one checkpoint or of several, as one PNG."""

from typing import Final

from app.core import jobs
from app.serving.encode import Pixels, sheet_png
from app.serving.film import FilmOrder
from app.serving.frames import checkpoints, frame_size, lay_out, sheet_pictures
from worker.rendering.engine import Engine
from worker.rendering.progress import Progress
from worker.rendering.publish import Drawn, Workplace, publish, require_weights

SHEET_NAME: Final = "sheet"


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Draw the sheet of a job, and end the job. Raises Stopped, with nothing left behind."""
    order = FilmOrder.model_validate(claim.request)
    require_weights(workshop.db, order.film)
    with workshop.storage.scratch() as folder, Engine(workshop.settings, workshop.storage, claim.should_stop) as engine:
        folder.mkdir()
        film = order.film.model_copy(update=engine.runtime._asdict())
        progress = Progress(workshop.storage, claim, film.pictures)
        shown: list[Pixels] = []
        for checkpoint in checkpoints(film):
            for picture in sheet_pictures(film, engine.load(checkpoint), engine.pictures):
                shown.append(picture)
                if progress.step():
                    progress.tell(f"Painted {len(shown)} of {film.pictures} pictures.", lay_out(film, shown))
        sheet, place = lay_out(film, shown), folder / SHEET_NAME
        place.write_bytes(sheet_png(sheet, film if order.metadata == "full" else None))
        told = {"pictures": film.pictures}
        publish(
            workshop,
            claim,
            progress,
            Drawn(place, "png", "image/png", frame_size(film), film, order.keep, sheet, told),
        )
