"""Renders: long drawing as jobs, and the files that come of it."""

import asyncio
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response
from starlette.requests import Request

from app.api import bodies, conditional, documenting, exporting, given, idempotency, projecting, renders
from app.api.deps import MayGenerate, Services, ServicesDep
from app.api.schemas.jobs import JobOut
from app.api.schemas.renders import ProjectionIn, RenderIn
from app.core import jobs
from app.core.errors import InvalidRequest, NotFound
from app.core.records import Job
from app.serving.service import FileKind

router = APIRouter(prefix="/v1/renders", tags=["renders"], dependencies=[MayGenerate])

DRAWING: Final = frozenset({"render", "project"})  # kinds of jobs
FOR_EVER: Final = "public, max-age=31536000, immutable"
LATEST: Final = "no-cache"  # it may be kept, and has to be asked for again
PREVIEW_TYPE: Final = "image/webp"
UPLOAD_BODY: Final = {
    "type": "object",
    "description": "A projection of the picture that is sent.",
    "required": ["kind", "image"],
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP or GIF."},
        **{name: each for name, each in ProjectionIn.model_json_schema()["properties"].items() if name != "of"},
    },
}
BODY: Final = bodies.documented(RenderIn | ProjectionIn, UPLOAD_BODY)
ID_SHOWN: Final = 8  # characters of a job's id in its file's name


@router.post("", status_code=202, response_model=JobOut, openapi_extra={"requestBody": BODY})
async def create(request: Request, services: ServicesDep) -> Response:
    """Draw a film or a sheet, as a job: a loop past seeds or keyframes, a walk, a growth through the checkpoints of a
    training, a grid, a batch. Or look for a picture in a model's latent space: kind projection, which takes a form with
    the picture as the file `image` too. What is drawn is at `/v1/renders/{job}/file`."""
    ordered = await _ordered(request, services)
    job, answer = await asyncio.to_thread(_submit, services, ordered)
    await asyncio.to_thread(services.dispatcher.dispatch, job)
    return answer


@router.get(
    "/{job}/file", response_class=FileResponse, responses={200: documenting.files(*exporting.SUFFIXES), 304: {}}
)
def file(job: str, request: Request, services: ServicesDep) -> Response:
    """What a render has drawn."""
    row = _find(services, job)
    result = row.result or {}
    if "file" not in result:
        message = f"Job {job} is {row.status} and has no file; one comes when a render has succeeded."
        raise NotFound(message, code="render_not_found", param="job")
    headers = {"etag": f'"{result["file"]}"', "cache-control": FOR_EVER}
    if conditional.has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(
        services.storage.path(result["file"]),
        media_type=result["media_type"],
        filename=_file_name(row),
        content_disposition_type="inline",
        headers=headers,
    )


@router.get("/{job}/preview", response_class=Response, responses={200: documenting.files(PREVIEW_TYPE), 304: {}})
def preview(job: str, request: Request, services: ServicesDep) -> Response:
    """What a render in the making looks like by now, and a finished one at its start: a small WebP."""
    sha256, picture = _preview(services, job)
    headers = {"etag": f'"{sha256}"', "cache-control": LATEST}
    if conditional.has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return Response(picture, media_type=PREVIEW_TYPE, headers=headers)


async def _ordered(request: Request, services: Services) -> renders.Order:
    if bodies.is_form(request):
        file, fields = await bodies.read_form(request, "image", "Send the picture to look for as the file `image`.")
        return await projecting.order(services, given.validated(ProjectionIn, fields), file)
    sent = await bodies.read_json(request)
    if isinstance(sent, dict) and sent.get("kind") == "projection":
        return await _projection(services, given.validated(ProjectionIn, sent))
    return await renders.order(services, given.validated(RenderIn, sent))


async def _projection(services: Services, wish: ProjectionIn) -> renders.Order:
    """Of a picture that is drawn here, of whichever model, and looked for in this one."""
    if wish.of is None:
        message = "Say as of which picture to look for, or send it in a form, as the file `image`."
        raise InvalidRequest(message, code="missing_field", param="of")
    known = await given.picture(services, wish.of, "of")
    (file,) = await services.painter.pictures([known.recipe], FileKind("png", metadata="minimal"))
    return await projecting.order(services, wish, file)


def _submit(services: Services, ordered: renders.Order) -> tuple[Job, Response]:
    with services.db.begin() as session:
        job = jobs.submit(session, *ordered)
        shown = JobOut.of(job, jobs.position(session, job))
        return job, idempotency.made(session, shown, 202, location=f"/v1/jobs/{job.id}")


def _find(services: Services, job_id: str) -> Job:
    with services.db.read() as session:
        job = jobs.find(session, job_id)
    if job.kind not in DRAWING:
        message = f"Job {job_id} is a {job.kind}, no render."
        raise NotFound(message, code="render_not_found", param="job")
    return job


def _preview(services: Services, job_id: str) -> tuple[str, bytes]:
    """The sha256 and the bytes of the latest preview; one that is superseded just now is looked up again."""
    row = _find(services, job_id)
    while row.preview_sha256 is not None:
        try:
            return row.preview_sha256, services.storage.get(row.preview_sha256)
        except (NotFound, FileNotFoundError):
            again = _find(services, job_id)
            if again.preview_sha256 == row.preview_sha256:
                raise
            row = again
    message = f"Job {job_id} is {row.status} and has nothing to show yet: its first picture is not painted."
    raise NotFound(message, code="preview_not_found", param="job")


def _file_name(job: Job) -> str:
    """What a browser calls the file, such as emoji-loop-1a2b3c4d.mp4."""
    result = job.result or {}
    model = (result.get("recipe") or {}).get("model", "ganvas")
    kind = job.request.get("kind", job.kind)
    return f"{model}-{kind}-{job.id.rpartition('_')[2][:ID_SHOWN]}.{result['format']}"
