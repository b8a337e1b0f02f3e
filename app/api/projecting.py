"""From a picture that was sent to the job that looks for it in a model's latent space."""

import asyncio
import contextlib
import time
from typing import Any, Final

from app.api.deps import Services
from app.api.schemas.renders import ProjectionIn
from app.core import jobs
from app.core.errors import GanvasError, InvalidRequest, Unavailable
from app.core.records import Job
from app.serving.decode import require_sound
from app.serving.projecting import ProjectionOrder
from app.serving.recipe import Recipe, random_seed

Order = tuple[jobs.Kind, dict[str, Any]]  # kind of job, and its request

SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF87a", b"GIF89a")
PATIENCE_SECONDS: Final = 300.0  # of a request that waits for a search; behind others it may have to wait for theirs
POLL_SECONDS: Final = 0.3


async def order(services: Services, wish: ProjectionIn, file: bytes) -> Order:
    """The job of looking for the picture in a file. Raises InvalidRequest, NotFound."""
    if not file.startswith(SIGNATURES) or (file.startswith(b"RIFF") and file[8:12] != b"WEBP"):
        message = f"The file begins with {file[:8]!r}: it is no PNG, JPEG, WebP or GIF."
        raise InvalidRequest(message, code="picture_expected", param="image")
    served = await services.directory.resolve(wish.model)
    await asyncio.to_thread(require_sound, file)
    target = await asyncio.to_thread(services.storage.put, file)
    wanted = ProjectionOrder(
        model=served.model,
        checkpoint=served.checkpoint,
        target=target,
        seed=random_seed() if wish.seed == -1 else wish.seed or 0,
        steps=wish.steps,
        film=wish.film,
    )
    return "project", wanted.model_dump(mode="json")


async def found(services: Services, file: bytes, model: str | None) -> Recipe:
    """The recipe of the picture of a model that comes nearest to a file's: searched for, as a job, while the caller
    waits. A caller that leaves takes the job along. Raises InvalidRequest, NotFound, Unavailable."""
    kind, request = await order(services, ProjectionIn(kind="projection", model=model, film=False), file)
    job = await asyncio.to_thread(_submit, services, kind, request)
    try:
        return await _result(services, job.id)
    except asyncio.CancelledError:
        await asyncio.to_thread(_cancel, services, job.id)
        raise


async def _result(services: Services, job_id: str) -> Recipe:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        job = await asyncio.to_thread(_look, services, job_id)
        if job.status == "succeeded" and job.result is not None:
            return Recipe.model_validate(job.result["recipe"])
        if job.status in jobs.ENDED:
            message = f"The picture could not be looked for: {job.message}"
            raise InvalidRequest(message, code="projection_failed", param="image")
        await asyncio.sleep(POLL_SECONDS)
    message = f"Job {job_id} is still looking for this picture; when it has ended, send the recipe of its result as of."
    raise Unavailable(message, code="projection_running")


def _submit(services: Services, kind: jobs.Kind, request: dict[str, Any]) -> Job:
    with services.db.begin() as session:
        job = jobs.submit(session, kind, request)
    services.dispatcher.dispatch(job)
    return job


def _look(services: Services, job_id: str) -> Job:
    with services.db.read() as session:
        return jobs.find(session, job_id)


def _cancel(services: Services, job_id: str) -> None:
    with contextlib.suppress(GanvasError), services.db.begin() as session:  # it may have ended just now
        jobs.cancel(session, job_id)
