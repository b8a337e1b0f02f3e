"""From what was asked to the recipe of a film or a sheet, every default written out."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from app.api import keyframes
from app.api.deps import Services
from app.api.directory import Served
from app.api.keyframes import Recipes
from app.api.schemas.renders import RenderIn
from app.core import catalogue
from app.core.errors import InvalidRequest
from app.serving.film import (
    MAX_CHECKPOINTS,
    MAX_FRAMES,
    MAX_KEYFRAMES,
    MAX_SHEET,
    SPACES,
    FilmRecipe,
    Path,
    Space,
    leads_through_z,
)
from app.serving.point import Point
from app.serving.recipe import parse_size, reason_of
from models.latents.easing import EASINGS

USUAL_SECONDS, USUAL_FPS, USUAL_RADIUS = 4.0, 24, 1.0
USUAL_KEYFRAMES, USUAL_PICTURES = 4, 16
# A straight way turns sharply at every keyframe, and rests there; a spline bends, and flows.
REST, FLOW, HOLD = "in_out_sine", "linear", "in_out_cubic"
WIDEST_ROW: Final = 8  # of several checkpoints with a picture each


class Plan(NamedTuple):
    """What is drawn, and by which models."""

    film: FilmRecipe
    served: tuple[Served, ...]  # every model once
    choose_phase: bool = False


async def path(services: Services, body: RenderIn) -> Plan:
    """A loop or a walk."""
    recipes = await keyframes.recipes_of(services, body)
    served = await services.directory.resolve(keyframes.model_of(body, recipes))
    points = await _passed(services, body, served, recipes)
    way, space = _way(body, points)
    noise = way == "noise"
    film = _film(
        body,
        (served,),
        kind=body.kind,
        checkpoint=served.checkpoint,
        model=served.model,
        keyframes=points,
        path=way,
        space=space,
        easing=None if noise else body.easing or (FLOW if way == "spline" else REST),
        radius=(body.radius or USUAL_RADIUS) if noise else None,
        phase=body.phase or 0,
        **_length(body),
    )
    return Plan(film, (served,), choose_phase=body.kind == "loop" and body.phase is None)


async def sheet(services: Services, body: RenderIn) -> Plan:
    """A growth or a grid. A growth that is asked for as one picture is the grid of its checkpoints."""
    recipes = await keyframes.recipes_of(services, body)
    served = await _models(services, body, recipes)
    checkpoints = await asyncio.to_thread(_checkpoints, services, body, served)
    if checkpoints:
        last = await services.directory.resolve(f"{served[-1].model}@{checkpoints[-1]}")
        served = (*served[:-1], last)
    points, seeds = await _shown(services, body, served[-1], recipes)
    film = body.kind == "growth" and body.format != "png"
    length = _length(body) if film else {}
    if film:
        checkpoints = _thinned(checkpoints, length["frames"])
    models = [each.model for each in served]
    fields = {
        "kind": "growth" if film else "grid",
        "checkpoint": served[-1].checkpoint,
        "model": served[-1].model,
        "checkpoints": checkpoints,
        "models": models if len(models) > 1 else (),
        "keyframes": points,
        "seeds": seeds,
        "columns": body.columns or _columns(len(points), len(seeds), 1 if film else max(1, len(checkpoints))),
        "easing": (body.easing or HOLD) if film else None,
        **length,
    }
    return Plan(_film(body, served, **fields), served)


def _film(body: RenderIn, served: Sequence[Served], **fields: Any) -> FilmRecipe:
    if body.easing is not None and body.easing not in EASINGS:
        message = f"There is no easing {body.easing!r}; there are {', '.join(EASINGS)}."
        raise InvalidRequest(message, param="easing")
    native = max(each.resolution for each in served)
    size = parse_size(body.size, (native, native))
    try:
        return FilmRecipe(size=size, noise_mode=body.noise_mode or "const", **fields)
    except ValidationError as error:
        raise InvalidRequest(f"This is no {body.kind}: {reason_of(error)}", param="kind") from error


def _length(body: RenderIn) -> dict[str, int]:
    """Frames, and how many a second."""
    seconds, fps = body.seconds or USUAL_SECONDS, body.fps or USUAL_FPS
    frames = max(1, round(seconds * fps))
    if frames > MAX_FRAMES:
        message = f"{seconds:g} s of {fps} frames a second are {frames:,} frames; a film has at most {MAX_FRAMES:,}."
        raise InvalidRequest(message, param="seconds")
    if body.phase is not None and body.phase >= frames:
        raise InvalidRequest(f"phase is {body.phase}; this loop has the frames 0 to {frames - 1}.", param="phase")
    return {"frames": frames, "fps": fps}


async def _passed(services: Services, body: RenderIn, served: Served, recipes: Recipes) -> tuple[Point, ...]:
    """The keyframes of a path."""
    if body.keyframes is not None:
        if body.seeds is not None:
            raise InvalidRequest("A path leads past keyframes or seeds; leave one of the two out.", param="seeds")
        points = await keyframes.keyframes_of(services, body, served, recipes)
    else:
        base = await keyframes.base_of(services, body, served)
        usual = 1 if body.path == "noise" else USUAL_KEYFRAMES
        seeds = keyframes.seeds_of(body, usual, MAX_KEYFRAMES)
        points = tuple(base.model_copy(update={"seed": seed}) for seed in seeds)
    if body.path == "noise":
        if body.kind != "loop":
            raise InvalidRequest("The path noise closes, so it is a loop; ask for kind loop.", param="path")
        if len(points) != 1:
            message = f"The path noise leads round one picture, and {len(points)} are given; give one seed."
            raise InvalidRequest(message, param="path")
    elif len(points) < 2:
        message = f"A {body.kind} leads from picture to picture; give two seeds or more, or a loop the path noise."
        raise InvalidRequest(message, param="seeds" if body.keyframes is None else "keyframes")
    return points


def _way(body: RenderIn, points: tuple[Point, ...]) -> tuple[Path, Space]:
    """How a path leads, and through which space."""
    for name in ("radius",) if body.path != "noise" else ("easing",):
        if getattr(body, name) is not None:
            message = f"The path {body.path or 'slerp'} has no {name}; leave it out."
            raise InvalidRequest(message, code="field_does_not_fit", param=name)
    through_z = leads_through_z(points)
    way: Path = body.path or ("slerp" if through_z and body.space != "w" else "spline")
    spaces = [space for space in SPACES[way] if body.space in (None, space)]
    if not spaces:
        raise InvalidRequest(f"The path {way} leads through {SPACES[way][0]}, not {body.space}.", param="space")
    if through_z:
        return way, spaces[0]
    if "w" not in spaces:
        message = (
            f"The path {way} leads through z, and these keyframes are no places in it: they are mixed, varied, crossed "
            "or found, or truncated in different layers. Take the path spline or linear, which lead through w."
        )
        raise InvalidRequest(message, param="path" if body.space is None else "space")
    return way, "w"


async def _models(services: Services, body: RenderIn, recipes: Recipes) -> tuple[Served, ...]:
    """The models of a sheet, in turn."""
    if body.models is None:
        return (await services.directory.resolve(keyframes.model_of(body, recipes)),)
    for name in ("model", "checkpoints", "sliders"):
        if getattr(body, name) is not None:
            message = f"{name} belongs to one model; with models, leave it out."
            raise InvalidRequest(message, code="field_does_not_fit", param=name)
    served = [await services.directory.resolve(name) for name in body.models]
    if len({each.conditional for each in served}) > 1 and (body.prompt or body.label):
        message = "Only some of these models know texts; leave prompt and label out."
        raise InvalidRequest(message, param="prompt" if body.prompt else "label")
    for each in served[:-1]:  # the last one is asked with its own keyframes
        await keyframes.base_of(services, body, each)
    return tuple(served)


def _checkpoints(services: Services, body: RenderIn, served: Sequence[Served]) -> tuple[str, ...]:
    """sha256 of the weights that a sheet or a growth shows, in turn; none where that is the model's own alone."""
    if len(served) > 1 or body.models is not None:
        return tuple(each.checkpoint for each in served)
    with services.db.read() as session:
        if body.checkpoints is not None:
            named = [catalogue.resolve(session, f"{served[0].model}@{prefix}") for prefix in body.checkpoints]
            listed = [each.checkpoint.sha256 for each in named]
        elif body.kind == "grid":
            return ()
        else:
            listed = [row.sha256 for row in catalogue.checkpoints(session, served[0].model)]
            listed = listed[: listed.index(served[0].checkpoint) + 1] if served[0].pinned else listed
    if body.kind == "growth" and len(listed) < 2:
        message = f"A growth leads from checkpoint to checkpoint, and {served[0].model!r} has one; let it train on."
        raise InvalidRequest(message, param="model" if body.checkpoints is None else "checkpoints")
    return _thinned(tuple(listed), MAX_CHECKPOINTS)


def _thinned(checkpoints: tuple[str, ...], most: int) -> tuple[str, ...]:
    """At most so many of them, the first and the last among them."""
    if len(checkpoints) <= most:
        return checkpoints
    steps = max(1, most - 1)
    return tuple(checkpoints[round(place * (len(checkpoints) - 1) / steps)] for place in range(steps + 1))


async def _shown(
    services: Services, body: RenderIn, served: Served, recipes: Recipes
) -> tuple[tuple[Point, ...], tuple[int, ...]]:
    """The keyframes of a sheet, and the seeds that each is shown with."""
    if body.keyframes is None:
        base = await keyframes.base_of(services, body, served)
        return (base,), keyframes.seeds_of(body, USUAL_PICTURES, MAX_SHEET)
    points = await keyframes.keyframes_of(services, body, served, recipes)
    if body.models is not None and any(point.stored() for point in points):
        raise InvalidRequest("Latents and sliders belong to one model; with models, give seeds.", param="keyframes")
    if body.seeds is None:
        return points, ()
    if any(point.latent or point.cross for point in points):
        message = "seeds take the place of each keyframe's own, and one of these starts from no seed; leave seeds out."
        raise InvalidRequest(message, param="seeds")
    return points, keyframes.seeds_of(body, 0, MAX_SHEET)


def _columns(points: int, seeds: int, checkpoints: int) -> int:
    """Pictures in a row: a row for each checkpoint, and each keyframe; what has no such rows becomes nearly square."""
    row = seeds or points
    rows = checkpoints * (points if seeds else 1)
    if rows > 1 and row > 1:
        return row
    pictures = rows * row
    return pictures if 1 < rows <= WIDEST_ROW else math.ceil(math.sqrt(pictures))
