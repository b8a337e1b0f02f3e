"""A finished drawing becomes the result of its job, while the job is still ours."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import jobs
from app.core.db import Database
from app.core.errors import NotFound
from app.core.records import Checkpoint, Job
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving import artwork
from app.serving.artwork import File
from app.serving.encode import Pixels
from app.serving.film import FilmRecipe
from app.serving.frames import checkpoints
from worker.rendering.progress import Progress


class Workplace(Protocol):
    """What a drawing works with; tasks.Workshop is one."""

    @property
    def settings(self) -> Settings:
        """The settings of this worker."""

    @property
    def db(self) -> Database:
        """Where the jobs are."""

    @property
    def storage(self) -> Storage:
        """Where files go."""


@dataclass(frozen=True)
class Drawn:
    """A film or a sheet, complete, in a scratch place."""

    place: Path
    format: str
    media_type: str
    size: tuple[int, int]  # width, height, pixels
    recipe: FilmRecipe
    keep: bool  # as an artwork
    poster: Pixels
    told: dict[str, Any] = field(default_factory=dict)  # what else the result says


def publish(workshop: Workplace, claim: jobs.Claim, progress: Progress, drawn: Drawn) -> None:
    """Store the file, and end the job with it in one transaction. LeaseLost where another epoch has the job."""
    size = drawn.place.stat().st_size
    stored, poster = workshop.storage.adopt(drawn.place), progress.poster(drawn.poster)
    forget: list[Callable[[], None]] = []
    result = filed(claim, stored, drawn.format, drawn.media_type, size, drawn.size)
    result |= drawn.told | {"recipe": drawn.recipe.model_dump(mode="json")}

    def change(session: Session, job: Job) -> None:
        workshop.storage.require(stored, poster)
        forget.append(progress.name(job, poster))
        if drawn.keep:
            file = File(stored, drawn.media_type, drawn.size, size, job.id)
            result["artwork"] = artwork.keep(session, workshop.storage, drawn.recipe, file).id

    message = f"{drawn.format} of {result['size']} pixels, {size / 1e6:.1f} MB."
    claim.finish("succeeded", message=message, change=change, result=result)
    forget[0]()


def filed(
    claim: jobs.Claim, stored: str, format_: str, media_type: str, bytes_: int, size: tuple[int, int]
) -> dict[str, Any]:
    """What every result says of its file; size: width and height of a picture or frame, pixels."""
    return {
        "file": stored,
        "url": f"/v1/renders/{claim.job_id}/file",
        "media_type": media_type,
        "format": format_,
        "bytes": bytes_,
        "size": f"{size[0]}x{size[1]}",
    }


def require_weights(db: Database, film: FilmRecipe) -> None:
    """NotFound where weights that a film shows were deleted since it was asked for."""
    require_checkpoints(db, checkpoints(film), film.model)


def require_checkpoints(db: Database, names: Iterable[str], model: str) -> None:
    """NotFound where a checkpoint was deleted since it was asked for."""
    wanted = set(names)
    with db.read() as session:
        known = set(session.scalars(select(Checkpoint.sha256).where(Checkpoint.sha256.in_(wanted))))
    for sha256 in sorted(wanted - known):
        message = f"The weights {sha256[:12]} of {model!r} were deleted before this was drawn."
        raise NotFound(message, code="checkpoint_not_found", param="model")
