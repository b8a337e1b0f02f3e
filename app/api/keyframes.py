"""From what was asked to the points that a film passes or a sheet shows, each known here and fit for its model."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.api import drawing, given, sliding
from app.api.deps import Services
from app.api.directory import Served
from app.api.given import Known
from app.api.schemas.renders import KeyframeIn, RenderIn
from app.core import latents
from app.core.errors import InvalidRequest
from app.core.records import Latent, Model
from app.serving.point import Point, Slider
from app.serving.recipe import Recipe, listed_seeds, random_seed, reason_of

USUAL_PSI: Final = 0.7

Recipes = Mapping[int, Known]  # of those keyframes that are whole recipes, by their number from 0


async def recipes_of(services: Services, body: RenderIn) -> Recipes:
    """The keyframes that are whole recipes, artworks or URLs. Raises InvalidRequest, NotFound."""
    return {
        number: await given.picture(services, sent, f"keyframes.{number}")
        for number, sent in enumerate(body.keyframes or [])
        if isinstance(sent, str) or "checkpoint" in sent
    }


def model_of(body: RenderIn, recipes: Recipes) -> str | None:
    """The model that is asked for: the one named, or else the weights of the recipes; None is the default one."""
    if body.model is not None or not recipes:
        return body.model
    references = {f"{known.served.model}@{known.served.checkpoint}" for known in recipes.values()}
    if len(references) == 1:
        return references.pop()
    named = ", ".join(sorted(reference[: reference.index("@") + 13] for reference in references))
    message = f"The keyframes were drawn with {named}; say as model which of them shall draw all."
    raise InvalidRequest(message, param="model")


async def keyframes_of(services: Services, body: RenderIn, served: Served, recipes: Recipes) -> tuple[Point, ...]:
    """The points that were listed. Raises InvalidRequest, NotFound, Underway and Conflict, as sliders do."""
    common = await sliding.sliders_of(services.directory, served, body.sliders)
    points = []
    for number, sent in enumerate(body.keyframes or []):
        if number in recipes:
            points.append(_of_recipe(recipes[number], served, number))
            continue
        wish = given.validated(KeyframeIn, sent, "keyframes", str(number))
        sliders = wish.sliders if isinstance(wish.sliders, tuple) else common
        if isinstance(wish.sliders, dict):
            sliders = await sliding.sliders_of(services.directory, served, wish.sliders)
        points.append(_of_wish(wish, body, served, sliders, number))
    return tuple(points)


async def base_of(services: Services, body: RenderIn, served: Served) -> Point:
    """What is said of every seed alike."""
    sliders = await sliding.sliders_of(services.directory, served, body.sliders)
    return _of_wish(KeyframeIn(seed=0), body, served, sliders, 0)


def seeds_of(body: RenderIn, usual: int, limit: int) -> tuple[int, ...]:
    """The seeds that were listed, or so many random ones."""
    if body.seeds is None:
        return tuple(random_seed() for _ in range(usual))
    return tuple(listed_seeds(body.seeds, limit))


def require_fit(session: Session, points: Iterable[Point], model: Model) -> None:
    """InvalidRequest or NotFound where a point asks for what this model has not got."""
    stored: set[str] = set()
    for point in points:
        stored |= point.stored()
        for part in point.points():
            _require_layers("mix", () if part.mix is None else part.mix.layers, model)
            _require_layers("cross", () if part.cross is None else part.cross.layers or (), model)
            if part.text and model.encoder is None:
                message = f"Model {model.name!r} knows no texts; leave prompt and label out."
                raise InvalidRequest(message, param="prompt")
    latents.require(session, stored, "keyframes")
    for latent in session.scalars(select(Latent).where(Latent.sha256.in_(stored))):
        if (latent.num_ws, latent.w_dim) != (model.num_ws, model.w_dim):
            message = f"Latent {latent.sha256[:12]} belongs to another model than {model.name!r}."
            raise InvalidRequest(message, code="latent_does_not_fit", param="keyframes")


def _require_layers(field: str, layers: Sequence[int], model: Model) -> None:
    if layers and max(layers) >= model.num_ws:
        has = f"layers 0 to {model.num_ws - 1}" if model.num_ws > 1 else "layer 0 alone"
        message = f"{field} asks for layer {max(layers)}; model {model.name!r} has {has}."
        raise InvalidRequest(message, param="keyframes")


def _of_recipe(known: Known, served: Served, number: int) -> Point:
    recipe = known.recipe
    param = f"keyframes.{number}"
    if known.served.model != served.model:
        message = f"Keyframe {number} is a picture of {known.served.model!r}, and this film is one of {served.model!r}."
        raise InvalidRequest(message, param=param)
    if recipe.stored() and recipe.checkpoint != served.checkpoint:
        message = (
            f"Keyframe {number} takes latents or sliders of checkpoint {recipe.checkpoint[:12]}, which mean nothing to "
            f"{served.checkpoint[:12]}; give {served.model}@{recipe.checkpoint[:12]} as model."
        )
        raise InvalidRequest(message, param=param)
    return _point(recipe)


def _of_wish(wish: KeyframeIn, body: RenderIn, served: Served, sliders: Sequence[Slider], number: int) -> Point:
    drawn = wish.latent is None and wish.cross is None
    told = drawn and wish.prompt is None and wish.label is None  # by the request, for all that say nothing
    psi, cutoff = wish.truncation_psi, wish.truncation_cutoff
    recipe = drawing.recipe_of(
        served,
        seed=random_seed() if wish.seed in (None, -1) else wish.seed,
        psi=psi if psi is not None else USUAL_PSI if body.truncation_psi is None else body.truncation_psi,
        cutoff=body.truncation_cutoff if cutoff is None else cutoff,
        noise_mode="const",
        size=None,
        label=body.label if told else wish.label,
        prompt=body.prompt if told else wish.prompt,
        mix=drawing.mix_of(wish.mix),
        latent=wish.latent,
        cross=wish.cross,
        variations=wish.variations,
        sliders=tuple(sliders),
    )
    return _point(recipe)


def _point(recipe: Recipe) -> Point:
    """The point that a picture's recipe names."""
    try:
        return recipe.point()
    except ValidationError as error:
        raise InvalidRequest(reason_of(error), param="keyframes") from error
