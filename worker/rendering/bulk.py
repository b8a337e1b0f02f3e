"""Many pictures into one zip, at the speed of the batcher, and part by part: a resume begins behind the last one."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple
from zipfile import BadZipFile, ZipFile, ZipInfo

import structlog
from sqlalchemy.orm import Session

from app.core import jobs, saving
from app.core.errors import Damaged, NotFound
from app.core.records import Job
from app.core.storage import Storage
from app.serving.bulk import PART, BulkOrder
from app.serving.encode import Pixels, encode
from app.serving.recipe import Recipe
from worker.rendering.engine import Engine
from worker.rendering.progress import Progress
from worker.rendering.publish import Workplace, filed, require_checkpoints

log = structlog.get_logger(__name__)

ZIP_NAME: Final = "pictures.zip"
PART_NAME: Final = "part.zip"
RECIPE_NAME: Final = "recipe.json"  # of all pictures but for their seeds, which their names tell
READABLE: Final = 0o644 << 16  # a file's mode as zip has it


class File(NamedTuple):
    """One picture of the zip."""

    name: str
    data: bytes
    pixels: Pixels


def draw(workshop: Workplace, claim: jobs.Claim) -> None:
    """Draw the pictures of a job, and end the job. Raises Stopped; the parts that are finished stay for a resume."""
    order = BulkOrder.model_validate(claim.request)
    require_checkpoints(workshop.db, [order.recipe.checkpoint], order.recipe.model)
    with workshop.storage.scratch() as folder, Engine(workshop.settings, workshop.storage, claim.should_stop) as engine:
        folder.mkdir()
        template = order.recipe.model_copy(update=engine.runtime._asdict())
        seeds = order.listed()
        with ZipFile(folder / ZIP_NAME, "w") as archive:
            done = _take_up(workshop, claim, archive)
            progress = Progress(workshop.storage, claim, len(seeds), done)
            files = _files(engine, order, template, seeds[done:])
            while part := _part(workshop.storage, claim.job_id, folder / PART_NAME, archive, files, progress):
                claim.publish(partial(_keep_part, workshop.storage, part))
            if order.metadata == "full":
                archive.writestr(_entry(RECIPE_NAME), template.canonical_json())
        _publish(workshop, claim, folder / ZIP_NAME, template, len(seeds))


def _files(engine: Engine, order: BulkOrder, template: Recipe, seeds: Sequence[int]) -> Iterator[File]:
    """The file of each seed, in order. Painting and packing are one piece of work for a thread, and some pieces are
    done ahead: nobody waits while parts are stored."""
    loaded = engine.load(template.checkpoint)
    loaded.check(template)

    def finish(some: Sequence[int]) -> list[File]:
        recipes = [template.model_copy(update={"seed": seed}) for seed in some]
        painted = zip(recipes, loaded.render(recipes), strict=True)
        return [File(order.name(recipe.seed), _encoded(order, recipe, pixels), pixels) for recipe, pixels in painted]

    for files in engine.in_order(partial(finish, some) for some in engine.passes(loaded, seeds)):
        yield from files


def _encoded(order: BulkOrder, recipe: Recipe, pixels: Pixels) -> bytes:
    return encode(
        pixels,
        output_format=order.output_format,
        recipe=recipe,
        compression=order.output_compression,
        metadata=order.metadata,
    )


def _part(
    storage: Storage, job: str, place: Path, archive: ZipFile, files: Iterator[File], progress: Progress
) -> str | None:
    """Write the next files to a zip of their own and to the whole one: the first's sha256, stored; None at the end."""
    count = 0
    with ZipFile(place, "w") as part:
        part.comment = job.encode()  # so that it is no other job's part, nor a whole zip, which is not deleted with it
        for file in islice(files, PART):
            part.writestr(_entry(file.name), file.data)
            archive.writestr(_entry(file.name), file.data)
            count += 1
            if progress.step():
                progress.tell(f"Drew {progress.done:,} of {progress.total:,} pictures.", file.pixels)
    return storage.adopt(place) if count else None


def _keep_part(storage: Storage, stored: str, _session: Session, job: Job) -> None:
    storage.require(stored)
    saving.keep_part(job, stored)


def _take_up(workshop: Workplace, claim: jobs.Claim, archive: ZipFile) -> int:
    """Copy what attempts before this one have finished, up to the first part that cannot be read; how many pictures
    that are."""
    with workshop.db.read() as session:
        parts = jobs.find(session, claim.job_id).parts
    copied = 0
    for place, sha256 in enumerate(parts):
        try:
            files = _read_part(workshop.storage, sha256)
        except (NotFound, Damaged, BadZipFile) as error:
            log.warning("part_unreadable", job=claim.job_id, blob=sha256, reason=str(error))
            claim.publish(partial(_keep_only, parts[:place]))
            break
        for name, data in files:
            archive.writestr(_entry(name), data)
        copied += len(files)
    return copied


def _read_part(storage: Storage, sha256: str) -> list[tuple[str, bytes]]:
    with ZipFile(storage.path(sha256)) as part:
        return [(name, part.read(name)) for name in part.namelist()]


def _keep_only(parts: list[str], _session: Session, job: Job) -> None:
    job.parts = parts


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name)  # of 1980, so that equal orders are equal bytes
    entry.external_attr = READABLE
    return entry


def _publish(workshop: Workplace, claim: jobs.Claim, place: Path, template: Recipe, pictures: int) -> None:
    """Store the zip and end the job with it in one transaction; the parts have done their work then."""
    size, stored = place.stat().st_size, workshop.storage.adopt(place)
    parts: list[str] = []

    def change(_session: Session, job: Job) -> None:
        workshop.storage.require(stored)
        parts.extend(job.parts)
        job.parts = []

    result = filed(claim, stored, "zip", "application/zip", size, template.size)
    result |= {"pictures": pictures, "recipe": template.model_dump(mode="json")}
    message = f"{pictures:,} pictures of {result['size']} pixels, {size / 1e6:.1f} MB."
    claim.finish("succeeded", message=message, change=change, result=result)
    for part in parts:
        workshop.storage.delete(part)
