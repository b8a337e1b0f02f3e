"""From what was asked to the job that draws it; what cannot be drawn is refused before it is queued."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from app.api import bulk, filming, keyframes
from app.api.deps import Services
from app.api.filming import Plan
from app.api.schemas.renders import RenderIn
from app.core import catalogue, jobs
from app.core.errors import InvalidRequest
from app.serving.film import MAX_FRAMES, FilmOrder, FilmRecipe, RenderFormat
from app.serving.films.settings import FilmSettings
from app.serving.films.writing import check_film
from app.serving.frames import checkpoints, frame_size
from app.serving.recipe import require_room

Order = tuple[jobs.Kind, dict[str, Any]]  # kind of job, and its request

MAX_PIXELS: Final = 2**34  # painted and written: half an hour or so of two cores
MAX_FRAME_SIDE: Final = 4096  # pixels: what video players take
MAX_SHEET_PIXELS: Final = 2**26  # in memory twice while it is packed
MAX_LOOP_BYTES: Final = 2**33  # that are kept on the disk while it is drawn
CHANNELS: Final = 3
ADDED: Final = {"phase": MAX_FRAMES - 1, "device": "cuda", "dtype": "bfloat16"}  # by the worker, at their longest

COMMON: Final = frozenset(
    {"kind", "model", "seeds", "keyframes", "size", "format", "metadata", "keep", "noise_mode"}
    | {"label", "prompt", "truncation_psi", "truncation_cutoff", "sliders"}
)
FILM: Final = frozenset({"seconds", "fps", "easing", "lossless"})
SHEET: Final = frozenset({"columns", "checkpoints"})
FITTING: Final[dict[str, frozenset[str]]] = {  # what each kind may be asked for, beside what all may
    "loop": FILM | {"path", "space", "radius", "phase"},
    "walk": FILM | {"path", "space"},
    "growth": FILM | SHEET,
    "grid": SHEET | {"models"},
    "batch": frozenset({"output_format", "output_compression"}),
}


async def order(services: Services, body: RenderIn) -> Order:
    """The job of what was asked for. Raises InvalidRequest, NotFound, and what sliders raise."""
    fitting = COMMON | FITTING["grid" if body.format == "png" and body.kind == "growth" else body.kind]
    for name in sorted(body.model_fields_set - fitting):
        if getattr(body, name) is not None:
            what = f"kind {body.kind}" if body.format is None else f"{body.kind} as {body.format}"
            message = f"{name} says nothing to a {what}; leave it out."
            raise InvalidRequest(message, code="field_does_not_fit", param=name)
    return await ORDERS[body.kind](services, body)


async def _path(services: Services, body: RenderIn) -> Order:
    return await _drawn(services, body, await filming.path(services, body))


async def _sheet(services: Services, body: RenderIn) -> Order:
    return await _drawn(services, body, await filming.sheet(services, body))


ORDERS: Final[dict[str, Callable[[Services, RenderIn], Awaitable[Order]]]] = {
    "loop": _path,
    "walk": _path,
    "growth": _sheet,
    "grid": _sheet,
    "batch": bulk.order,
}


async def _drawn(services: Services, body: RenderIn, plan: Plan) -> Order:
    """The job that draws a film or a sheet, once all of it is known to be possible."""
    film, still = plan.film, plan.film.kind == "grid"
    format_: RenderFormat = body.format or ("png" if still else "mp4")
    if (format_ == "png") != still:
        message = "A sheet is a png." if still else f"A {film.kind} is a film: mp4, webm, webp, gif or zip."
        raise InvalidRequest(message, param="format")
    lossless = format_ in {"png", "zip"} or bool(body.lossless)
    metadata = body.metadata or "full"
    native = max(each.resolution for each in plan.served)
    _require_room(film, native)
    if format_ != "png":
        check_film(format_, FilmSettings(frame_size(film), film.fps or 1, None, lossless, loop=True))
    await asyncio.to_thread(_require_fit, services, plan)
    job = FilmOrder(
        kind=film.kind,
        film=film,
        choose_phase=plan.choose_phase,
        format=format_,
        lossless=lossless,
        metadata=metadata,
        keep=bool(body.keep),
    )
    return "render", job.model_dump(mode="json")


def _require_room(film: FilmRecipe, native: int) -> None:
    """InvalidRequest for what would take too long, too much of the disk, or too much memory."""
    try:
        require_room(film.model_copy(update=ADDED).canonical_json())
    except ValueError as error:
        raise InvalidRequest(f"This is too much for one recipe: {error}", param="keyframes") from error
    width, height = frame_size(film)
    if film.kind == "grid":
        if width * height > MAX_SHEET_PIXELS:
            message = f"The sheet would have {width}x{height} pixels; at most {MAX_SHEET_PIXELS:,} in all."
            raise InvalidRequest(f"{message} Give a smaller size, or fewer pictures.", param="size")
    elif max(width, height) > MAX_FRAME_SIDE:
        message = f"A frame would have {width}x{height} pixels; at most {MAX_FRAME_SIDE} a side."
        raise InvalidRequest(f"{message} Give a smaller size, or fewer pictures.", param="size")
    painted = film.frames if film.kind in {"loop", "walk"} else film.pictures
    painted *= len(checkpoints(film)) if film.kind == "growth" else 1
    pixels = painted * native**2 + film.frames * width * height
    if pixels > MAX_PIXELS:
        message = f"This is {pixels:,} pixels to paint and to write, and one job takes at most {MAX_PIXELS:,}."
        raise InvalidRequest(f"{message} Give fewer frames, or a smaller size.", param="size")
    if film.kind == "loop" and film.frames * native**2 * CHANNELS > MAX_LOOP_BYTES:
        message = f"{film.frames:,} pictures of {native} px are too many to find out where a loop of them closes best."
        raise InvalidRequest(f"{message} Give fewer seconds or frames a second.", param="seconds")


def _require_fit(services: Services, plan: Plan) -> None:
    with services.db.read() as session:
        for name in {served.model for served in plan.served}:
            keyframes.require_fit(session, plan.film.keyframes, catalogue.find(session, name))
