"""Keeping: pictures that were just drawn, and the files of finished renders, become artworks."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy.orm import Session

from app.api.deps import Services
from app.core import callers, jobs, space
from app.core.errors import InvalidRequest, JobStateConflict
from app.core.records import Artwork, Job
from app.serving import artwork, lineage
from app.serving.artwork import UNSAID, About, File
from app.serving.encode import MEDIA_TYPES
from app.serving.recipe import OutputFormat, Recipe

Told = TypeVar("Told")


def keep_pictures(
    services: Services,
    recipes: Sequence[Recipe],
    files: Sequence[bytes],
    output_format: OutputFormat,
    tell: Callable[[Session, Sequence[Artwork]], Told],
    about: About = UNSAID,
) -> Told:
    """Keep pictures, all or none: the files first, then the rows that name them. Returns what `tell` makes of these, in
    the same transaction. NotAllowed for a caller whose key is for one model."""
    callers.require_all_models("keep artworks")
    space.require_room(services.settings)
    stored = [
        File(services.storage.put(file), MEDIA_TYPES[output_format], recipe.size, len(file))
        for recipe, file in zip(recipes, files, strict=True)
    ]
    with services.db.begin() as session:
        kept = [
            artwork.keep(session, services.storage, recipe, file, about)
            for recipe, file in zip(recipes, stored, strict=True)
        ]
        return tell(session, kept)


def keep_render(
    services: Services, job_id: str, tell: Callable[[Session, Sequence[Artwork]], Told], about: About
) -> Told:
    """Keep the file of a finished render, and tell of it as of pictures. Raises NotFound, JobStateConflict, and
    InvalidRequest for a job that drew neither a film nor a sheet."""
    with services.db.begin() as session:
        job = jobs.find(session, job_id)
        if job.status != "succeeded":
            raise JobStateConflict(f"Job {job.id} is {job.status}; a render is kept when it has succeeded.")
        result = job.result or {}
        film = result.get("recipe") or {}
        if "file" not in result or "keyframes" not in film:
            raise _no_film(job)
        width, _, height = str(result["size"]).partition("x")
        file = File(result["file"], result["media_type"], (int(width), int(height)), result["bytes"], job.id)
        return tell(session, [artwork.keep(session, services.storage, lineage.read(film), file, about)])


def _no_film(job: Job) -> InvalidRequest:
    message = f"Job {job.id} has drawn no film and no sheet."
    if "recipe" in (job.result or {}):
        message += " Its result has the recipe of a picture; keep that: send it as recipe."
    return InvalidRequest(message, code="render_not_kept", param="render")
