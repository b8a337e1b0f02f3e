"""From what was asked to recipes, and from recipes to files, for as long as the client is there."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard, TypeVar

from starlette.requests import ClientDisconnect, Request

from app.api.directory import Served
from app.api.schemas.images import ImageQuery, ImagesIn, MixIn
from app.core.errors import InvalidRequest
from app.serving.recipe import MAX_LAYERS, MetadataLevel, Mix, OutputFormat, Recipe, parse_layers, parse_size, seeds_for
from app.serving.service import Painter

Result = TypeVar("Result")

PROMPTED_SEED: Final = 0  # of a prompt that came without a seed: the same prompt is the same picture


@dataclass(frozen=True)
class FileKind:
    """Which file is made of a picture."""

    output_format: OutputFormat
    compression: int | None
    metadata: MetadataLevel


def has_text(prompt: str | None) -> TypeGuard[str]:
    """Whether a prompt says anything."""
    return prompt is not None and bool(prompt.strip())


def recipes_for(body: ImagesIn, served: Served) -> list[Recipe]:
    """A recipe for each picture of a request."""
    if body.sliders:
        name = next(iter(body.sliders))
        message = f"Model {served.model!r} has no direction {name!r}: it has no named directions. Leave sliders out."
        raise InvalidRequest(message, code="direction_not_found", param="sliders")
    if body.keep:
        message = "Artworks are not kept in this version; leave keep out. A picture's url or recipe draws it again."
        raise InvalidRequest(message, code="keep_unavailable", param="keep")
    seed = PROMPTED_SEED if body.seed is None and has_text(body.prompt) else body.seed
    seeds = seeds_for(seed, body.seeds, body.n or 1)
    base = _recipe(
        served,
        seed=seeds[0],
        psi=0.7 if body.truncation_psi is None else body.truncation_psi,
        cutoff=body.truncation_cutoff,
        noise_mode=body.noise_mode or "const",
        size=body.size,
        label=body.label,
        prompt=body.prompt,
        mix=_mix(body.mix),
    )
    return [base, *(base.model_copy(update={"seed": seed}) for seed in seeds[1:])]


def recipe_of_query(query: ImageQuery, served: Served, seed: int) -> Recipe:
    """The recipe that a picture's URL means."""
    if (query.mix_seed is None) != (query.mix_layers is None):
        raise InvalidRequest("mix_seed and mix_layers go together.", param="mix_layers")
    mix = None
    if query.mix_seed is not None and query.mix_layers is not None:
        mix = _mix(MixIn(seed=query.mix_seed, layers=query.mix_layers))
    return _recipe(
        served,
        seed=seed,
        psi=query.psi,
        cutoff=query.cutoff,
        noise_mode=query.noise_mode,
        size=query.size,
        label=query.label,
        prompt=query.prompt,
        mix=mix,
    )


def _recipe(
    served: Served,
    *,
    seed: int,
    psi: float,
    cutoff: int | None,
    noise_mode: Any,
    size: str | None,
    label: str | None,
    prompt: str | None,
    mix: Mix | None,
) -> Recipe:
    if label:
        message = f"Model {served.model!r} was trained without labels; leave label out."
        raise InvalidRequest(message, code="label_not_found", param="label")
    prompt = prompt if has_text(prompt) else None
    return Recipe(
        model=served.model,
        checkpoint=served.checkpoint,
        seed=seed,
        truncation_psi=psi,
        truncation_cutoff=cutoff,
        noise_mode=noise_mode,
        size=parse_size(size, (served.resolution, served.resolution)),
        prompt=prompt,
        prompt_mode=None if prompt is None else "hashed",
        mix=mix,
    )


def _mix(mix: MixIn | None) -> Mix | None:
    if mix is None:
        return None
    layers = parse_layers(mix.layers if isinstance(mix.layers, str) else ",".join(map(str, mix.layers)))
    if max(layers) >= MAX_LAYERS:
        raise InvalidRequest(f"mix asks for layer {max(layers)}; no model has more than {MAX_LAYERS}.", param="mix")
    return Mix(seed=mix.seed, layers=layers)


def begin(painter: Painter, recipes: Sequence[Recipe], kind: FileKind) -> list[asyncio.Task[bytes]]:
    """Ask for all pictures at once, each for itself; the tasks give the files."""
    return [
        asyncio.create_task(painter.picture(recipe, kind.output_format, kind.compression, kind.metadata))
        for recipe in recipes
    ]


async def draw(request: Request, painter: Painter, recipes: Sequence[Recipe], kind: FileKind) -> list[bytes]:
    """The files of all recipes, for as long as the client is there."""
    work = painter.pictures(recipes, kind.output_format, kind.compression, kind.metadata)
    return await while_connected(request, asyncio.create_task(work))


async def while_connected(request: Request, task: asyncio.Task[Result]) -> Result:
    """What the task gives; ClientDisconnect, with the task cancelled, as soon as the client has left."""
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await drop((task, gone))


async def drop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what is not done, and wait until it has noticed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
