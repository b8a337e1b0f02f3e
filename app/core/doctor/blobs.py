"""Blobs: those that are missing or damaged and what can go on without them, those that nobody names, and torn files."""

import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import blobs, catalogue, jobs
from app.core.blobs import Named
from app.core.db import Database
from app.core.doctor.finding import Finding, repairable, repaired, well, wrong
from app.core.errors import Damaged, NotFound
from app.core.queue import Dispatcher
from app.core.records import Checkpoint, Dataset, Job, Model
from app.core.settings import MIB, Settings
from app.core.storage import STALE_SECONDS, Storage, Stored

DELETED_AT_ONCE: Final = 1_000  # blobs in one transaction: others wait for it to write
SHOWN: Final = 20  # blobs that are told of one by one


def needed(settings: Settings, db: Database, storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Read every blob that some row needs. A repair lets the studio go on with what is whole; it deletes nothing."""
    with db.read() as session:
        named = blobs.named(session)
    bad = _bad(storage, named)
    if bad:  # reading takes long, and a training that runs may have forgotten some of them meanwhile
        with db.read() as session:
            still = blobs.named(session).needed
        bad = {sha256: told for sha256, told in bad.items() if sha256 in still}
    if not bad:
        yield well("blobs", f"All {len(named.needed):,} that are needed are here and hold what was written.")
        return
    mended: set[str] = set()
    if repair:
        for sha256, message in _mend(settings, db, set(bad)):
            mended.add(sha256)
            yield repaired("blobs", message)
    rest = [f"{what}: {problem}" for sha256, (what, problem) in bad.items() if sha256 not in mended]
    for told in rest[:SHOWN]:
        yield wrong("blobs", f"The {told}")
    if rest:
        more = f"and {len(rest) - SHOWN} more; " if len(rest) > SHOWN else ""
        yield wrong("blobs", f"{more}{len(rest)} of {len(named.needed):,} blobs are lost; a backup may have them.")


def _bad(storage: Storage, named: Named) -> dict[str, tuple[str, str]]:
    """What is missing or damaged: what it was, and what is the matter. Unavailable where storage does not answer."""
    found = {}
    for sha256, what in sorted(named.needed.items()):
        try:
            storage.verify(sha256)
        except (NotFound, Damaged) as error:
            found[sha256] = (what, error.message)
    return found


def _mend(settings: Settings, db: Database, bad: set[str]) -> list[tuple[str, str]]:
    """Do without what is lost, where something whole can stand in for it; which blob, and what was done."""
    with db.begin() as session:
        mended = [*_states(session, bad), *_models(session, bad), *_pictures(session, bad)]
        again, told = _datasets(session, bad)
    if again:
        dispatcher = Dispatcher(db, settings.redis)
        for job in again:
            dispatcher.dispatch(job)
        dispatcher.close()
    return mended + told


def _states(session: Session, bad: set[str]) -> Iterator[tuple[str, str]]:
    for job in session.scalars(select(Job).where(Job.state_sha256.in_(bad) | Job.previous_state_sha256.in_(bad))):
        newest, before = job.state_sha256, job.previous_state_sha256
        if before in bad:
            job.previous_state_sha256 = None
        if newest in bad:
            job.state_sha256, job.previous_state_sha256 = job.previous_state_sha256, None
        for sha256 in {newest, before} & bad:
            rest = "the one before it" if job.state_sha256 == before else "its newest"
            rest = rest if job.state_sha256 else "its beginning, as none is left"
            yield str(sha256), f"A saved state of job {job.id} is lost; it goes on from {rest}."


def _models(session: Session, bad: set[str]) -> Iterator[tuple[str, str]]:
    for model in session.scalars(select(Model).where(Model.promoted.in_(bad))):
        lost = str(model.promoted)
        if (stands_in := catalogue.fall_back(session, model.name, bad)) is not None:
            message = f"Checkpoint {lost[:12]}, which {model.name!r} meant, is lost; it means {stands_in[:12]} now."
            yield lost, message


def _pictures(session: Session, bad: set[str]) -> Iterator[tuple[str, str]]:
    for sheet in session.scalars(select(Checkpoint).where(Checkpoint.sheet_sha256.in_(bad))):
        lost, sheet.sheet_sha256 = str(sheet.sheet_sha256), None
        yield lost, f"The sample sheet of {sheet.model_name!r} at {sheet.kimg:.1f} kimg is lost and is shown no more."
    for job in session.scalars(select(Job).where(Job.preview_sha256.in_(bad))):
        lost, job.preview_sha256 = str(job.preview_sha256), None
        yield lost, f"The preview of job {job.id} is lost and is shown no more."


def _datasets(session: Session, bad: set[str]) -> tuple[list[Job], list[tuple[str, str]]]:
    """Prepare datasets again whose archive is whole; the jobs that do, which are to be dispatched."""
    again, told = [], []
    lost = Dataset.array_sha256.in_(bad) | Dataset.manifest_sha256.in_(bad)
    for row in session.scalars(select(Dataset).where(lost, Dataset.status == "ready")):
        if row.source_sha256 in bad:
            continue
        job = jobs.submit(session, "prepare", {"dataset": row.id, **row.request})
        row.status, row.job_id = "preparing", job.id
        again.append(job)
        message = f"What was prepared of dataset {row.id} is lost; job {job.id} prepares it again."
        told += [(str(sha256), message) for sha256 in {row.array_sha256, row.manifest_sha256} & bad]
    return again, told


def orphans(db: Database, storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """Blobs that no row names, older than any work that could be about to name them."""
    before = time.time() - STALE_SECONDS
    old = [stored for stored in storage.listing() if stored.modified < before]
    with db.read() as session:
        named = blobs.named(session)  # after the listing: what was named meanwhile is seen
    litter = [stored for stored in old if stored.sha256 not in named]
    message = f"{len(litter):,} blobs of {sum(each.bytes for each in litter) // MIB:,} MiB are named nowhere"
    if not litter:
        yield well("orphans", "Every blob older than a day is named somewhere.")
    elif repair:
        for start in range(0, len(litter), DELETED_AT_ONCE):
            _delete(db, storage, litter[start : start + DELETED_AT_ONCE])
        yield repaired("orphans", f"{message}; they are deleted.")
    else:
        yield repairable("orphans", f"{message}.")


def _delete(db: Database, storage: Storage, litter: list[Stored]) -> None:
    """In a transaction, as whoever is about to name one of them looks for it in a transaction too."""
    with db.begin() as session:
        named = blobs.named(session)
        for stored in litter:
            if stored.sha256 not in named:
                storage.delete(stored.sha256)


def torn(storage: Storage, *, repair: bool) -> Iterator[Finding]:
    """What killed processes left half-made, older than anything that is still in the making."""
    count = storage.stale_scratch()
    message = f"{count} half-made files of processes that were killed lie in blobs/tmp"
    if not count:
        yield well("scratch", "Nothing half-made is left behind.")
    elif repair:
        storage.clear_scratch()
        yield repaired("scratch", f"{message}; they are removed.")
    else:
        yield repairable("scratch", f"{message}.")
