"""A picture looked for in a model's latent space: what comes of it is a recipe, and a film of the search."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from sqlalchemy.orm import Session
from torch import Tensor

from app.core import jobs, latents
from app.core.errors import GanvasError, InvalidRequest
from app.core.records import Job
from app.core.storage import Storage
from app.serving.encode import Pixels, resample
from app.serving.films.containers import MEDIA_TYPES
from app.serving.films.writing import open_film
from app.serving.projecting import FILM_FPS, ProjectionOrder
from app.serving.recipe import Recipe
from models.errors import ModelsError
from models.latents import likeness, projection
from models.latents.projection import Projection
from models.networks.generator import Generator
from worker.dataset.decode_pool import Decoder, Framing
from worker.dataset.formats import picture_format
from worker.dataset.verdicts import Refused
from worker.rendering import networks
from worker.rendering.engine import Engine, Stopped
from worker.rendering.progress import TELLING_SECONDS, Progress
from worker.rendering.publish import Workplace, require_checkpoints

LOOKING_SHARE: Final = 0.4  # of the progress, for looking at seeds; the rest is the search
FILM_SIDE: Final = 256  # pixels: the least that is comfortable to watch
REST_FRAMES: Final = FILM_FPS  # on the picture that was found
FILM_NAME: Final = "film"
WHITE: Final = (255, 255, 255)


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Look for the picture of a job, and end the job. Raises Stopped, with nothing published."""
    order = ProjectionOrder.model_validate(claim.request)
    require_checkpoints(workshop.db, [order.checkpoint], order.model)
    generator, _ = networks.read(workshop, order.checkpoint)
    target = _target(workshop.storage, order, generator)
    search = Search(claim, Progress(workshop.storage, claim, order.steps or projection.STEPS))
    found = search.find(generator, target, order)
    with workshop.storage.scratch() as folder, Engine(workshop.settings, workshop.storage, claim.should_stop) as engine:
        folder.mkdir()
        stored = latents.store(workshop.storage, found.w.cpu().numpy())
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
        told = {"recipe": recipe.model_dump(mode="json")} | alike(picture, target)
        if order.film:
            told |= _film(engine, workshop.storage, folder / FILM_NAME, order, found, target)
        _publish(workshop, claim, search.progress, told, (stored, found), beside(target, picture))


def _target(storage: Storage, order: ProjectionOrder, generator: Generator) -> Pixels:
    """The picture as a dataset would have it, [R, R, 3]: decoded in a process of its own. Raises InvalidRequest."""
    data = storage.get(order.target)
    side = generator.config.resolution
    if generator.config.channels != len(WHITE):
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


class Search:
    """A search, and what is told of it."""

    def __init__(self, claim: jobs.Claim, progress: Progress) -> None:
        self.progress = progress
        self._claim = claim
        self._told = time.monotonic()

    def find(self, generator: Generator, target: Pixels, order: ProjectionOrder) -> Projection:
        """Look at many seeds, then search from the nearest ones. Raises Stopped."""
        try:
            sketches = projection.sketch(generator, on_batch=self._looked, should_stop=self._claim.should_stop)
        except ModelsError as error:
            raise GanvasError(str(error), code="encoder_unavailable") from error
        if sketches is None:
            raise Stopped
        found = projection.project(
            generator,
            tensor(target),
            sketches,
            seed=order.seed,
            steps=self.progress.total,
            on_step=self._stepped(generator, target),
            should_stop=self._claim.should_stop,
        )
        if found is None:
            raise Stopped
        return found

    def _looked(self, done: int, total: int) -> None:
        if time.monotonic() - self._told < TELLING_SECONDS:
            return
        self._told = time.monotonic()
        message = f"Looked at {done:,} of {total:,} seeds."
        self._claim.report("tick", {"seeds": done}, progress=LOOKING_SHARE * done / total, message=message)

    def _stepped(self, generator: Generator, target: Pixels) -> Callable[[int, int, Tensor, float], None]:
        def tell(step: int, steps: int, w: Tensor, _loss: float) -> None:
            if self.progress.step():
                with torch.no_grad():
                    x = generator.synthesis(w[None])
                self.progress.tell(f"Step {step} of {steps}.", beside(target, pixels(x)))

        return tell


def _film(
    engine: Engine, storage: Storage, place: Path, order: ProjectionOrder, found: Projection, target: Pixels
) -> dict[str, Any]:
    """The target, and beside it the way there; it carries the mark alone, for no recipe gives a search."""
    loaded = engine.load(order.checkpoint)
    way = torch.cat([found.trajectory, found.w[None].expand(REST_FRAMES, -1, -1)])
    scale = max(1, FILM_SIDE // target.shape[0])
    size = (2 * target.shape[1] * scale, target.shape[0] * scale)
    with open_film(place, "mp4", size=size, fps=FILM_FPS, recipe=None, loop=False) as writer:
        for picture in engine.pictures(loaded, range(len(way)), lambda some: way[list(some)]):
            writer.add(resample(beside(target, picture), size))
    result = {"bytes": place.stat().st_size, "frames": len(way), "fps": FILM_FPS, "size": f"{size[0]}x{size[1]}"}
    return result | {"file": storage.adopt(place), "format": "mp4", "media_type": MEDIA_TYPES["mp4"]}


def _publish(
    workshop: Workplace,
    claim: jobs.Claim,
    progress: Progress,
    told: dict[str, Any],
    latent: tuple[str, Projection],
    poster: Pixels,
) -> None:
    """List the latent, and end the job with its recipe, in one transaction."""
    stored, found = latent
    shown, forget = progress.poster(poster), []
    if "file" in told:
        told["url"] = f"/v1/renders/{claim.job_id}/file"

    def change(session: Session, job: Job) -> None:
        workshop.storage.require(*(name for name in (shown, told.get("file")) if name))
        latents.keep(session, workshop.storage, stored, (found.w.shape[0], found.w.shape[1]), job.id)
        forget.append(progress.name(job, shown))

    message = f"Found: similarity {told['ssim']:.2f} (SSIM), error {100 * told['error']:.1f}%."
    claim.finish("succeeded", message=message, change=change, result=told)
    forget[0]()


def alike(picture: Pixels, target: Pixels) -> dict[str, float]:
    """How alike two pictures are: SSIM, 1 for equal ones, and the multi-scale error, 0 for equal ones."""
    seen, goal = likeness.look(tensor(picture)), likeness.look(tensor(target))
    return {"ssim": float(likeness.similarity(seen, goal)), "error": float(likeness.error(seen, goal))}


def beside(target: Pixels, picture: Pixels) -> Pixels:
    """What is looked for, and what is there by now, [R, 2 R, 3]."""
    return np.concatenate([target, picture], axis=1)


def tensor(picture: Pixels) -> Tensor:
    """[R, R, 3] as x [1, 3, R, R] in [-1, 1]."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def pixels(x: Tensor) -> Pixels:
    """The inverse, of x [1, 3, R, R]."""
    picture: Pixels = (x * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()
    return picture
