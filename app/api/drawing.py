"""From what was asked to recipes, and from recipes to files, for as long as the client is there."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeGuard, TypeVar

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from app.api.directory import Served
from app.api.schemas.images import ImageQuery, ImagesIn, MixIn
from app.core.errors import InvalidRequest
from app.serving.batcher import TIMEOUT_SECONDS
from app.serving.point import MAX_LAYERS, Slider
from app.serving.recipe import (
    Mix,
    Recipe,
    parse_cross,
    parse_layers,
    parse_size,
    parse_variations,
    reason_of,
    seeds_for,
)
from app.serving.service import Asker, FileKind, Painter
from models.text import terms

Result = TypeVar("Result")

HASHED_SEED: Final = 0  # of a hashed prompt that came without a seed: the same prompt is the same picture
UNUSED_SEED: Final = 0  # of a picture that starts from a latent or between two points
SAID_BY_A_RECIPE: Final = (
    *("model", "prompt", "label", "best_of", "seed", "seeds", "truncation_psi", "truncation_cutoff"),
    *("sliders", "mix", "noise_mode", "size"),
)
LABELS_NAMED: Final = 20  # in a message


def has_text(prompt: str | None) -> TypeGuard[str]:
    """Whether a prompt says anything."""
    return prompt is not None and bool(prompt.strip())


def seed_of(seed: int | None, prompt: str | None, served: Served) -> int | None:
    """The seed that was asked for; None or -1 where one has to be drawn."""
    return HASHED_SEED if seed is None and has_text(prompt) and not served.conditional else seed


def seed_of_query(query: ImageQuery, served: Served) -> int | None:
    """The same of a URL. What starts in a seed's place needs none."""
    if query.seed is None and (query.latent or query.cross):
        return UNUSED_SEED
    return seed_of(query.seed, query.prompt, served)


def require_recipe_alone(body: ImagesIn) -> None:
    """InvalidRequest where a body says by itself what its recipe says."""
    for name in SAID_BY_A_RECIPE:
        if getattr(body, name) not in (None, "", {}):
            raise InvalidRequest(f"The recipe says all about its picture; leave {name} out.", param=name)
    if body.n not in (None, 1):
        raise InvalidRequest(f"n is {body.n}, and one recipe is one picture; leave n out.", param="n")


def recipes_for(body: ImagesIn, served: Served, sliders: tuple[Slider, ...] = ()) -> list[Recipe]:
    """A recipe for each picture of a request, or for each candidate where the best of many is wanted.

    sliders: what the body's mean in these weights, see sliding.py.
    """
    n = body.n or 1
    seeds = seeds_for(seed_of(body.seed, body.prompt, served), body.seeds, _candidates(body, n))
    base = recipe_of(
        served,
        seed=seeds[0],
        psi=0.7 if body.truncation_psi is None else body.truncation_psi,
        cutoff=body.truncation_cutoff,
        noise_mode=body.noise_mode or "const",
        size=body.size,
        label=body.label,
        prompt=body.prompt,
        mix=mix_of(body.mix),
        sliders=sliders,
    )
    if body.best_of is not None and not base.text:
        message = "best_of ranks by a text: give a prompt or a label, to a model that was trained with some."
        raise InvalidRequest(message, code="best_of_needs_prompt", param="best_of")
    return [base, *(base.model_copy(update={"seed": seed}) for seed in seeds[1:])]


def _candidates(body: ImagesIn, n: int) -> int:
    if body.best_of is None:
        return n
    if body.best_of < n:
        raise InvalidRequest(f"best_of is {body.best_of} and n is {n}; the best n are of n or more.", param="best_of")
    if body.seeds is not None:
        message = "best_of draws seed, seed + 1 and so on; give seed in place of seeds."
        raise InvalidRequest(message, param="best_of")
    return body.best_of


def recipe_of_query(query: ImageQuery, served: Served, seed: int, sliders: tuple[Slider, ...] = ()) -> Recipe:
    """The recipe that a picture's URL means; sliders: what the query's mean in these weights, see sliding.py."""
    if (query.mix_seed is None) != (query.mix_layers is None):
        raise InvalidRequest("mix_seed and mix_layers go together.", param="mix_layers")
    mix = None
    if query.mix_seed is not None and query.mix_layers is not None:
        mix = mix_of(MixIn(seed=query.mix_seed, layers=query.mix_layers))
    return recipe_of(
        served,
        seed=seed,
        psi=query.psi,
        cutoff=query.cutoff,
        noise_mode=query.noise_mode,
        size=query.size,
        label=query.label,
        prompt=query.prompt,
        mix=mix,
        latent=query.latent,
        cross=None if query.cross is None else parse_cross(query.cross),
        variations=() if query.variations is None else parse_variations(query.variations),
        sliders=sliders,
    )


def recipe_of(
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
    **steps: Any,
) -> Recipe:
    """steps: what of a recipe no seed says."""
    prompt = prompt if has_text(prompt) else None
    fields = {
        "model": served.model,
        "checkpoint": served.checkpoint,
        "seed": seed,
        "truncation_psi": psi,
        "truncation_cutoff": cutoff,
        "noise_mode": noise_mode,
        "size": parse_size(size, (served.resolution, served.resolution)),
        "label": _label(label, served),
        "prompt": prompt,
        "prompt_mode": None if prompt is None or served.conditional else "hashed",
        "mix": mix,
        "device": served.runtime.device,
        "dtype": served.runtime.dtype,
    }
    try:
        return Recipe(**fields, **steps)
    except ValidationError as error:  # of what each part may say, all of them together do not
        raise InvalidRequest(reason_of(error), param="recipe") from error


def _label(label: str | None, served: Served) -> str | None:
    if not label:
        return None
    if label in served.labels:
        return label
    message = f"Model {served.model!r} was trained without labels; leave label out."
    if served.labels:
        named = ", ".join(served.labels[:LABELS_NAMED]) + (", ..." if len(served.labels) > LABELS_NAMED else "")
        message = f"Model {served.model!r} knows no label {label!r}; it knows {named}."
    raise InvalidRequest(message, code="label_not_found", param="label")


def told(served: Served, recipe: Recipe) -> dict[str, Any]:
    """What the answer says of a prompt: that it was hashed, or which of its words the model was trained with."""
    if recipe.prompt is None:
        return {}
    if recipe.prompt_mode is not None:
        return {"prompt_mode": recipe.prompt_mode}
    matched, unknown = terms(recipe.prompt, served.vocabulary)
    return {"matched_terms": matched, "unknown_terms": unknown}


def mix_of(mix: MixIn | None) -> Mix | None:
    """Style mixing, as a recipe says it. Raises InvalidRequest."""
    if mix is None:
        return None
    layers = parse_layers(mix.layers if isinstance(mix.layers, str) else ",".join(map(str, mix.layers)))
    if max(layers) >= MAX_LAYERS:
        raise InvalidRequest(f"mix asks for layer {max(layers)}; no model has more than {MAX_LAYERS}.", param="mix")
    return Mix(seed=mix.seed, layers=layers)


async def best(request: Request, painter: Painter, candidates: Sequence[Recipe], n: int) -> list[tuple[Recipe, float]]:
    """The n of the candidates that fit their text best, best first, each with its match."""
    matches = await while_connected(request, painter.matches(candidates, asker_of(request)))
    ranked = sorted(zip(candidates, matches, strict=True), key=lambda pair: -pair[1])  # equals stay in their order
    return ranked[:n]


def begin(request: Request, painter: Painter, recipes: Sequence[Recipe], kind: FileKind) -> list[asyncio.Task[bytes]]:
    """Ask for all pictures at once, each for itself; the tasks give the files."""
    asker = asker_of(request)
    return [asyncio.create_task(painter.picture(recipe, kind, asker)) for recipe in recipes]


async def draw(request: Request, painter: Painter, recipes: Sequence[Recipe], kind: FileKind) -> list[bytes]:
    """The files of all recipes, for as long as the client is there."""
    return await while_connected(request, painter.pictures(recipes, kind, asker_of(request)))


def asker_of(request: Request) -> Asker:
    """Who asks, by key, or by connection where none is needed; and how long OpenAI's clients say that they wait."""
    headers = request.headers
    name = headers.get("authorization") or str(request.client)
    try:
        patience = float(headers.get("x-stainless-timeout", TIMEOUT_SECONDS))
    except ValueError:
        patience = TIMEOUT_SECONDS
    return Asker(name, min(max(patience, 0.0), TIMEOUT_SECONDS))


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """What the work gives; ClientDisconnect, with the work cancelled, as soon as the client has left."""
    worker = asyncio.current_task()
    watcher = asyncio.create_task(_disconnected(request))
    at_work, left = True, False

    def leave(_watcher: asyncio.Task[None]) -> None:
        nonlocal left
        if at_work and worker is not None:
            left = True
            worker.cancel()

    watcher.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if left and worker is not None and worker.uncancel() == 0:
            raise ClientDisconnect from None
        raise
    finally:
        at_work = False
        watcher.cancel()


async def drop(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what is not done, and wait until it has noticed."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
