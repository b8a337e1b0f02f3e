"""Directions: found in a checkpoint and shown as strips on a sheet, or carried over from where they are known."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.core import carrying, catalogue, directions, jobs, latents
from app.core.directions import Found
from app.core.errors import InvalidRequest
from app.core.records import Job
from app.serving import strips
from app.serving.encode import Pixels, marked_png
from app.serving.point import Point, Slider
from app.serving.strips import REACH, SEED, STEPS
from models.errors import ModelsError
from models.latents.directions import pca, sefa
from worker.rendering import networks
from worker.rendering.carrying import carry
from worker.rendering.engine import Engine
from worker.rendering.progress import Progress
from worker.rendering.publish import Workplace, filed


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Find directions, or carry them over, and end the job. Raises Stopped, with nothing published."""
    if claim.request.get("carry"):
        carry(workshop, claim)
    else:
        find(workshop, claim)


def find(workshop: Workplace, claim: jobs.Claim) -> None:
    """Find directions in one checkpoint, draw what each does, and publish all of it in one transaction."""
    request = claim.request
    model, checkpoint, method = request["model"], request["checkpoint"], request["method"]
    with workshop.db.read() as session:
        catalogue.resolve(session, f"{model}@{checkpoint}")
    found = _found(workshop, request)
    with workshop.db.read() as session:
        names = directions.names_for(session, model, checkpoint, found, method)
    progress = Progress(workshop.storage, claim, len(found) * STEPS)
    with Engine(workshop.settings, workshop.storage, claim.should_stop) as engine:
        rows = _strips(engine, progress, checkpoint, list(zip(names, found, strict=True)))
    sheet = strips.sheet(rows, names, strips.amounts(STEPS, REACH))
    _publish(workshop, claim, progress, found, sheet)


def _found(workshop: Workplace, request: dict[str, Any]) -> list[Found]:
    """What the method finds; the steps are stored: a standard deviation each, in the layers that were asked for."""
    generator, _ = networks.read(workshop, request["checkpoint"])
    count, layers = request["count"], request["layers"]
    try:
        found = sefa(generator, count, layers) if request["method"] == "sefa" else pca(generator, count)
    except ModelsError as error:
        raise InvalidRequest(str(error)) from error
    stored = []
    for vector, sigma, share in zip(found.vectors, found.sigma, found.share, strict=True):
        step = networks.in_layers(sigma * vector, layers, generator.num_ws)
        stored.append(Found(latents.store(workshop.storage, step), float(share)))
    return stored


def _strips(engine: Engine, progress: Progress, checkpoint: str, found: Sequence[tuple[str, Found]]) -> list[Pixels]:
    """What each direction does to one picture, a strip each."""
    loaded = engine.load(checkpoint)
    points = [
        Point(seed=SEED, sliders=(Slider(name=name, amount=amount, offset=each.vector),))
        for name, each in found
        for amount in strips.amounts(STEPS, REACH)
    ]
    shown: list[Pixels] = []
    for picture in engine.pictures(loaded, range(len(points)), lambda some: loaded.place([points[n] for n in some])):
        shown.append(picture)
        if progress.step():
            progress.tell(f"Painted {len(shown)} of {len(points)} pictures.", picture)
    return [strips.strip(shown[start : start + STEPS]) for start in range(0, len(shown), STEPS)]


def _publish(workshop: Workplace, claim: jobs.Claim, progress: Progress, found: Sequence[Found], sheet: Pixels) -> None:
    """List what was found, its sheet as the job's file, and have it carried over to what the model's name means."""
    request, storage = claim.request, workshop.storage
    data = marked_png(sheet)
    file, poster = storage.put(data), progress.poster(sheet)
    result = filed(claim, file, "png", "image/png", len(data), (sheet.shape[1], sheet.shape[0]))
    result["checkpoint"] = request["checkpoint"]
    forget: list[Callable[[], None]] = []

    def change(session: Session, job: Job) -> None:
        storage.require(file, poster)
        model = catalogue.resolve(session, f"{request['model']}@{request['checkpoint']}").model
        result["directions"] = directions.publish_found(
            session,
            storage,
            model,
            request["checkpoint"],
            found,
            method=request["method"],
            layers=request["layers"],
            job_id=job.id,
        )
        if model.promoted is not None:
            carrying.want(session, model.name, model.promoted)
        forget.append(progress.name(job, poster))

    message = f"Found {len(found)} directions in {request['model']!r}; their strips go from {-REACH:g} to {REACH:g}."
    claim.finish("succeeded", message=message, change=change, result=result)
    forget[0]()
