"""Which blobs the database names: what must be in storage, and what must not leave it."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.jobs import ENDED
from app.core.records import Artwork, Checkpoint, Dataset, IdempotentRequest, Job, JobEvent, Latent
from app.core.storage import Storage

SHA256: Final = re.compile(r"\b[0-9a-f]{64}\b")
RESULTS: Final = {  # keys of a job's result that name a blob, and what it is
    "file": "file of job",
    "report_sha256": "report of job",
    "report_json_sha256": "report's figures of job",
}
REQUESTS: Final = {"target": "picture sent to job", "branch": "state that begins job"}  # needed until it has ended
EVIDENCE: Final = "evidence_sha256"  # of a warning's data

Column = InstrumentedAttribute[Any]
COLUMNS: Final[tuple[tuple[str, Column, Column], ...]] = (  # what it is, the blob, and whose it is
    ("archive of dataset", Dataset.source_sha256, Dataset.id),
    ("pictures of dataset", Dataset.array_sha256, Dataset.id),
    ("manifest of dataset", Dataset.manifest_sha256, Dataset.id),
    ("checkpoint of model", Checkpoint.sha256, Checkpoint.model_name),
    ("sample sheet of model", Checkpoint.sheet_sha256, Checkpoint.model_name),
    ("saved state of job", Job.state_sha256, Job.id),
    ("state before the last of job", Job.previous_state_sha256, Job.id),
    ("preview of job", Job.preview_sha256, Job.id),
    ("latent", Latent.sha256, Latent.sha256),
    ("file of artwork", Artwork.file_sha256, Artwork.id),
    ("answer given again", IdempotentRequest.body_sha256, IdempotentRequest.created_at),
)


@dataclass
class Named:
    """Blobs by sha256. `needed` has to be there, for whom it says; `mentioned` may be gone, and is not to be deleted
    where it is not."""

    needed: dict[str, str] = field(default_factory=dict)
    mentioned: set[str] = field(default_factory=set)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self.needed or sha256 in self.mentioned


def named(session: Session) -> Named:
    """Every blob that some row names. To delete another, look in the transaction that would keep rows from naming it,
    or wait until it is older than any work that could be about to."""
    found = Named()
    for what, blob, owner in COLUMNS:
        for sha256, whose in session.execute(select(blob, owner).where(blob.is_not(None))):
            found.needed.setdefault(sha256, f"{what} {whose}" if whose != sha256 else what)
    for job in session.execute(select(Job.id, Job.status, Job.request, Job.result, Job.parts)):
        found.mentioned |= _hashes(job.request) | _hashes(job.result) | set(job.parts)  # one that ended may be resumed
        for what, sha256 in _of_job(job.status, job.request, job.result or {}, job.parts):
            found.needed.setdefault(sha256, f"{what} {job.id}")
    warnings = select(JobEvent.job_id, JobEvent.data).where(JobEvent.type == "warning")
    for event in session.execute(warnings):
        if sha256 := event.data.get(EVIDENCE):
            found.needed.setdefault(sha256, f"pictures of a warning of job {event.job_id}")
    return found


def delete_unneeded(session: Session, storage: Storage, freed: Iterable[str]) -> None:
    """Delete those of these blobs that no row needs any longer: in the transaction that forgot them, so that nobody who
    looks for one in order to name it is overtaken."""
    session.flush()
    needed = named(session).needed
    for sha256 in freed:
        if sha256 not in needed:
            storage.delete(sha256)


def _of_job(
    status: str, request: dict[str, Any], result: dict[str, Any], parts: list[str]
) -> Iterator[tuple[str, str]]:
    """What a job needs beside its columns."""
    yield from ((what, result[key]) for key, what in RESULTS.items() if result.get(key))
    if status not in ENDED:
        yield from ((what, request[key]) for key, what in REQUESTS.items() if request.get(key))
        yield from (("part of job", sha256) for sha256 in parts)


def _hashes(content: dict[str, Any] | None) -> set[str]:
    return set(SHA256.findall(json.dumps(content))) if content else set()
