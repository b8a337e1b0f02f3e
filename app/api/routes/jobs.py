"""Jobs: where they are, what happens to them, and how to stop or resume one."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Final, cast

from fastapi import APIRouter, Header, Path, Query
from fastapi.responses import FileResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request

from app.api import documenting, idempotency, paging, trainings
from app.api.access import KEY_TRUSTED_SECONDS, read_head
from app.api.deps import KeyScope, MayTrain, PagingDep, Services, ServicesDep, caller_of, require_one
from app.api.schemas.jobs import EventOut, JobOut, Kind, SampleOut, Status, sheet_name
from app.api.schemas.lists import Page
from app.api.schemas.training import BranchIn, TrainingOut
from app.core import jobs
from app.core.errors import GanvasError, NotFound
from app.core.records import Checkpoint, Job, JobEvent

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

# Who may see and stop a job: keys with any of these scopes.
SCOPES: Final[dict[Kind, tuple[KeyScope, ...]]] = {
    "prepare": ("train",),
    "train": ("train",),
    "render": ("generate", "train"),  # directions are found by a render too, and that is a trainer's to ask for
    "project": ("generate", "train"),
}

PNG: Final = documenting.files("image/png")
FIGURES: Final = documenting.files("application/json")
PAGE: Final = documenting.files("text/html")

EVENT_POLL_SECONDS: Final = 0.5  # a follower hears of an event at most this late
GOODBYE_SECONDS: Final = 3.0  # a stream ends by itself within this when the process stops
EVENTS_AT_ONCE: Final = 200
SEQUENCE_MAX: Final = 2**63 - 1  # what a database counts to
# A report needs nothing but itself: its pictures are data: URLs, its style is inline, and it has no scripts.
REPORT_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
}


@router.get("")
def list_(
    request: Request,
    services: ServicesDep,
    paging_: PagingDep,
    kind: Annotated[Kind | None, Query(description="Only jobs of this kind.")] = None,
    status: Annotated[Status | None, Query(description="Only jobs that are there.")] = None,
) -> Page[JobOut]:
    """All jobs that the key may see."""
    require_one(request, SCOPES[kind] if kind is not None else ("generate", "train"))
    wanted = {"kind": kind, "status": status}
    seen = [each for each, scopes in SCOPES.items() if set(scopes) & caller_of(request).scopes]
    query = select(Job).where(Job.kind.in_(seen))
    query = query.filter_by(**{name: value for name, value in wanted.items() if value is not None})
    with services.db.read() as session:
        return paging.page_of_rows(
            session, Job, query, paging_, key=Job.id, created_at=Job.created_at, show=lambda job: _show(session, job)
        )


@router.get("/{job}")
def get(job: str, request: Request, services: ServicesDep) -> JobOut:
    """One job."""
    with services.db.read() as session:
        return _show(session, _permitted(request, jobs.find(session, job)))


@router.get("/{job}/events", response_model=Page[EventOut], responses={200: documenting.files("text/event-stream")})
async def events(
    job: str,
    request: Request,
    services: ServicesDep,
    last_event_id: Annotated[int, Header(ge=0, le=SEQUENCE_MAX, description="Events behind this one.")] = 0,
    after: Annotated[int, Query(ge=0, le=SEQUENCE_MAX, description="The same, where headers cannot be set.")] = 0,
    limit: Annotated[int, Query(ge=1, le=EVENTS_AT_ONCE, description="Most entries in a list.")] = 50,
) -> Response | Page[EventOut]:
    """What happened: a list, or with `Accept: text/event-stream` a stream that ends with the job."""
    start = max(last_event_id, after)
    await asyncio.to_thread(_require_permission, request, services, job)
    found, _ = await asyncio.to_thread(_events, services, job, start, limit + 1)
    if "text/event-stream" in request.headers.get("accept", ""):
        return EventSourceResponse(_follow(request, services, job, start), shutdown_grace_period=GOODBYE_SECONDS)
    shown = found[:limit]
    return paging.page(shown, [str(event.id) for event in shown], has_more=len(found) > limit)


@router.post("/{job}/cancel", response_model=JobOut)
def cancel(job: str, request: Request, services: ServicesDep) -> Response:
    """Stop a job at its next step; a training keeps its last checkpoint."""
    with services.db.begin() as session:
        _permitted(request, jobs.find(session, job))
        return idempotency.made(session, _show(session, jobs.cancel(session, job)))


@router.post("/{job}/resume", response_model=JobOut)
def resume(job: str, request: Request, services: ServicesDep) -> Response:
    """Go on with a canceled or failed job from where it last saved, exactly."""
    with services.db.begin() as session:
        _permitted(request, jobs.find(session, job))
        row = jobs.resume(session, job)
        session.flush()
        answer = idempotency.made(session, _show(session, row))
    services.dispatcher.dispatch(row)
    return answer


@router.post("/{job}/branch", status_code=202, response_model=TrainingOut, dependencies=[MayTrain])
def branch(job: str, body: BranchIn, services: ServicesDep) -> Response:
    """Start another training from where this one last saved, or from one of its checkpoints, with other settings."""
    webhook = trainings.told_at(body.webhook, services.settings.webhook_hosts)
    with services.db.begin() as session:
        row, shown = trainings.submit(session, trainings.branch_request(session, job, body), webhook)
        answer = idempotency.made(session, shown, 202, location=f"/v1/jobs/{row.id}")
    services.dispatcher.dispatch(row)
    return answer


@router.get("/{job}/samples", dependencies=[MayTrain])
def samples(job: str, services: ServicesDep) -> Page[SampleOut]:
    """A training's sample sheets, in the order they were drawn."""
    with services.db.read() as session:
        jobs.find(session, job)
        shown = [SampleOut.of(job, row) for row in _sheets(session, job)]
    return paging.page(shown, [sheet_name(sample.kimg) for sample in shown], has_more=False)


@router.get("/{job}/samples/{kimg}.png", response_class=FileResponse, responses={200: PNG}, dependencies=[MayTrain])
def sample(job: str, kimg: str, services: ServicesDep) -> FileResponse:
    """One sample sheet, by its kimg with one decimal."""
    with services.db.read() as session:
        jobs.find(session, job)
        named = [row for row in _sheets(session, job) if sheet_name(row.kimg) == kimg]
    if not named:
        message = f"Job {job} has no sheet at {kimg} kimg. GET /v1/jobs/{job}/samples lists them."
        raise NotFound(message, code="sample_not_found", param="kimg")
    return FileResponse(services.storage.path(named[-1].sheet_sha256 or ""), media_type="image/png")


@router.get("/{job}/evidence/{sha256}.png", response_class=FileResponse, responses={200: PNG}, dependencies=[MayTrain])
def evidence(
    job: str,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="First 12 hex digits of its sha256.")],
    services: ServicesDep,
) -> FileResponse:
    """The pictures that a warning of the training is about."""
    with services.db.read() as session:
        jobs.find(session, job)
        warnings = session.scalars(select(JobEvent).where(JobEvent.job_id == job, JobEvent.type == "warning"))
        told = [str(event.data.get("evidence_sha256", "")) for event in warnings]
    found = next((name for name in told if name.startswith(sha256)), None)
    if found is None:
        message = f"No warning of job {job} shows {sha256}.png. GET /v1/jobs/{job}/events has the warnings."
        raise NotFound(message, code="evidence_not_found", param="sha256")
    return FileResponse(services.storage.path(found), media_type="image/png")


@router.get("/{job}/report.json", response_class=FileResponse, responses={200: FIGURES}, dependencies=[MayTrain])
def report_figures(job: str, services: ServicesDep) -> FileResponse:
    """Everything that was measured of a finished training."""
    return FileResponse(_report(services, job, "report_json_sha256"), media_type="application/json")


@router.get("/{job}/report", response_class=FileResponse, responses={200: PAGE}, dependencies=[MayTrain])
def report(job: str, services: ServicesDep) -> FileResponse:
    """The same as a page, with plots and pictures."""
    return FileResponse(_report(services, job, "report_sha256"), media_type="text/html", headers=REPORT_HEADERS)


def _report(services: Services, job: str, name: str) -> str:
    """Where a part of a job's report is kept; NotFound where it has none, or none yet."""
    with services.db.read() as session:
        row = jobs.find(session, job)
    sha256 = (row.result or {}).get(name)
    if sha256 is None:
        message = f"Job {job} is {row.status} and has no report; a training writes one when its budget has ended."
        raise NotFound(message, code="report_not_found", param="job")
    return str(services.storage.path(sha256))


def _permitted(request: Request, job: Job) -> Job:
    """The job, or NotAllowed where it is not for this key to see."""
    require_one(request, SCOPES[cast("Kind", job.kind)])
    return job


def _require_permission(request: Request, services: Services, job: str) -> None:
    with services.db.read() as session:
        _permitted(request, jobs.find(session, job))


def _show(session: Session, job: Job) -> JobOut:
    return JobOut.of(job, jobs.position(session, job))


def _sheets(session: Session, job: str) -> list[Checkpoint]:
    query = select(Checkpoint).where(Checkpoint.job_id == job, Checkpoint.sheet_sha256.is_not(None))
    return list(session.scalars(query.order_by(Checkpoint.kimg, Checkpoint.created_at)))


def _events(services: Services, job: str, after: int, limit: int) -> tuple[list[EventOut], bool]:
    """Events behind one, and whether the job had ended before they were read."""
    with services.db.read() as session:
        ended = jobs.find(session, job).status in jobs.ENDED
        return [EventOut.of(row) for row in jobs.events_after(session, job, after, limit)], ended


async def _follow(request: Request, services: Services, job: str, after: int) -> AsyncIterator[ServerSentEvent]:
    trusted_until = time.monotonic() + KEY_TRUSTED_SECONDS
    while True:
        if time.monotonic() >= trusted_until:
            try:
                await services.gate.admit(request.scope, read_head(request.scope))
            except GanvasError:  # its key has ended; who comes back is told
                return
            trusted_until = time.monotonic() + KEY_TRUSTED_SECONDS
        found, ended = await asyncio.to_thread(_events, services, job, after, EVENTS_AT_ONCE)
        for event in found:
            yield ServerSentEvent(event.model_dump_json(), event=event.type, id=str(event.id))
            after = event.id
        if found:
            continue
        if ended or services.leaving.is_set():  # then whoever follows comes back with Last-Event-ID, to who is there
            return
        await asyncio.sleep(EVENT_POLL_SECONDS)
