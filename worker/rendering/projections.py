"""A picture looked for in a model's latent space: what comes of it is a recipe, and a film of the search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sqlalchemy.orm import Session

from app.core import errors, jobs, latents
from app.core.errors import InvalidRequest
from app.core.records import Job
from app.core.storage import Storage
from app.serving.encode import Pixels, resample
from app.serving.films.containers import MEDIA_TYPES
from app.serving.films.writing import open_film
from app.serving.projecting import FILM_FPS, ProjectionOrder
from app.serving.recipe import Recipe
from app.serving.runtime import devices
from models.checkpoint import read_meta
from models.errors import CheckpointInvalid, EncoderUnavailable
from models.latents.projection import STEPS
from worker.dataset.decode_pool import Decoder, Framing
from worker.dataset.formats import picture_format
from worker.dataset.verdicts import Refused
from worker.rendering.engine import Engine, Stopped
from worker.rendering.progress import Progress
from worker.rendering.project import Found, likeness_of, project_picture
from worker.rendering.publish import Workplace, filed, require_checkpoints
from worker.training.share import step_threads

PERCENT: Final = 100
FILM_SIDE: Final = 256  # pixels: the least that is comfortable to watch
REST_FRAMES: Final = FILM_FPS  # on the picture that was found
FILM_NAME: Final = "film"
WHITE: Final = (255, 255, 255)


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Look for the picture of a job, and end the job. Raises Stopped, with nothing published."""
    order = ProjectionOrder.model_validate(claim.request)
    require_checkpoints(workshop.db, [order.checkpoint], order.model)
    target = _target(workshop.storage, order)
    progress = Progress(workshop.storage, claim, PERCENT)
    found = _search(workshop, claim, progress, order, target)
    with workshop.storage.scratch() as folder, Engine(workshop.settings, workshop.storage, claim.should_stop) as engine:
        folder.mkdir()
        stored = latents.store(workshop.storage, found.w)
        side = target.shape[0]
        recipe = Recipe(
            model=order.model,
            checkpoint=order.checkpoint,
            seed=found.seed,
            truncation_psi=1.0,
            latent=stored,
            size=(side, side),
            **engine.runtime._asdict(),
        )
        picture = engine.load(order.checkpoint).render([recipe])[0]
        told = {"recipe": recipe.model_dump(mode="json")} | likeness_of(picture, target)._asdict()
        if order.film:
            told |= _film(engine, workshop.storage, claim, folder / FILM_NAME, order, found, target)
        told["seed_likeness"] = (
            found.seed_likeness._asdict()
        )  # of the nearest seed, beside which the search has to be good
        _publish(workshop, claim, progress, told, (stored, found), beside(target, picture))


def _target(storage: Storage, order: ProjectionOrder) -> Pixels:
    """The picture as a dataset would have it, [R, R, 3]: decoded in a process of its own. Raises InvalidRequest."""
    data = storage.get(order.target)
    network = read_meta(storage.path(order.checkpoint)).config.network
    side = network.resolution
    if network.channels != len(WHITE):
        raise InvalidRequest("Only models of colour pictures can be searched.", code="picture_expected")
    decoder = Decoder()
    try:
        kind = picture_format(data, "")
        decoded = decoder.prepare(data, kind, Framing(side, "center", WHITE)).pixels
    except Refused as refusal:
        raise InvalidRequest(f"The picture cannot be read: {refusal.reason}", code="picture_expected") from refusal
    finally:
        decoder.close()
    return np.frombuffer(decoded, dtype=np.uint8).reshape(side, side, 3)


def _search(
    workshop: Workplace, claim: jobs.Claim, progress: Progress, order: ProjectionOrder, target: Pixels
) -> Found:
    """Raises Stopped, CheckpointInvalid, and Conflict where the checkpoint's texts cannot be read here."""
    torch.set_num_threads(step_threads(workshop.settings.threads))

    def tell(share: float, doing: str, picture: Pixels | None) -> None:
        progress.done = round(PERCENT * share)
        if picture is None:
            claim.report("tick", {"done": progress.done, "total": PERCENT}, progress=share, message=doing)
        else:
            progress.tell(doing, beside(target, picture))

    try:
        found = project_picture(
            workshop.storage.path(order.checkpoint),
            target,
            on_progress=tell,
            should_stop=claim.should_stop,
            device=devices(workshop.settings.device)[0],
            steps=order.steps or STEPS,
            seed=order.seed,
        )
    except CheckpointInvalid as error:
        raise errors.CheckpointInvalid(f"Checkpoint {order.checkpoint[:12]}: {error}") from error
    except EncoderUnavailable as error:
        raise errors.Conflict(f"This model cannot be searched here: {error}", code="encoder_unavailable") from error
    if found is None:
        raise Stopped
    return found


def _film(
    engine: Engine,
    storage: Storage,
    claim: jobs.Claim,
    place: Path,
    order: ProjectionOrder,
    found: Found,
    target: Pixels,
) -> dict[str, Any]:
    """The target, and beside it the way there; it carries the mark alone, for no recipe gives a search."""
    loaded = engine.load(order.checkpoint)
    way = torch.from_numpy(np.concatenate([found.trajectory, np.repeat(found.w[None], REST_FRAMES, axis=0)]))
    way = way.to(loaded.generator.w_avg.device)
    scale = max(1, FILM_SIDE // target.shape[0])
    size = (2 * target.shape[1] * scale, target.shape[0] * scale)
    with open_film(place, "mp4", size=size, fps=FILM_FPS, recipe=None, loop=False) as writer:
        for picture in engine.pictures(loaded, range(len(way)), lambda some: way[list(some)]):
            writer.add(resample(beside(target, picture), size))
    bytes_ = place.stat().st_size
    said = filed(claim, storage.adopt(place), "mp4", MEDIA_TYPES["mp4"], bytes_, size)
    return said | {"frames": len(way), "fps": FILM_FPS}


def _publish(
    workshop: Workplace,
    claim: jobs.Claim,
    progress: Progress,
    told: dict[str, Any],
    latent: tuple[str, Found],
    poster: Pixels,
) -> None:
    """List the latent, and end the job with its recipe, in one transaction."""
    stored, found = latent
    shown = progress.poster(poster)
    forget: list[Callable[[], None]] = []

    def change(session: Session, job: Job) -> None:
        workshop.storage.require(*(name for name in (shown, told.get("file")) if name))
        latents.keep(session, workshop.storage, stored, (found.w.shape[0], found.w.shape[1]), job.id)
        forget.append(progress.name(job, shown))

    message = f"Found: similarity {told['similarity']:.2f} (SSIM), error {100 * told['error']:.1f}%."
    claim.finish("succeeded", message=message, change=change, result=told)
    forget[0]()


def beside(target: Pixels, picture: Pixels) -> Pixels:
    """What is looked for, and what is there by now, [R, 2 R, 3]."""
    return np.concatenate([target, picture], axis=1)
