"""What live messages mean: each is merged into those before it (RFC 7396), and all of them together are a recipe."""

from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json

from app.api import drawing, errors, sliding
from app.api.directory import ModelDirectory, Served
from app.api.schemas.images import ImagesIn
from app.api.schemas.live import LivePicture, LiveView
from app.core.errors import GanvasError, InvalidRequest
from app.serving.live import Id, Kind, Said, Viewer
from app.serving.recipe import Recipe, parse_size, random_seed, reason_of
from app.serving.service import FileKind

# As URLs and the images API call them.
SHORT_NAMES: Final = {
    "psi": "truncation_psi",
    "cutoff": "truncation_cutoff",
    "output_format": "format",
    "output_compression": "compression",
}
VIEW_FIELDS: Final = frozenset(LiveView.model_fields)
MAX_ID_CHARACTERS: Final = 200


class Message(NamedTuple):
    """One message, sorted."""

    id: Id | None
    reset: bool  # forget what was said of the picture before
    view: dict[str, Any]
    picture: Said


class Session:
    """One connection's side of a performance."""

    def __init__(self, directory: ModelDirectory, model: str, viewer: Viewer, *, may_perform: bool) -> None:
        self._directory = directory
        self._model = model  # as it was named
        self._viewer = viewer
        self._may_perform = may_perform
        self._view: dict[str, Any] = {}

    async def hear(self, text: str | None) -> bool:
        """Do what a message says; where that cannot be, the viewer is told why, and nothing has changed."""
        id_ = None
        try:
            message = read(text)
            id_ = message.id
            await self._obey(message)
        except GanvasError as error:
            self._viewer.refuse(error, id_)
            return False
        return True

    async def _obey(self, message: Message) -> None:
        if not self._may_perform and (message.picture or message.reset or message.id is not None):
            named = next(iter(message.picture), "reset" if message.reset else "id")
            text = f"You watch, and only {', '.join(sorted(VIEW_FIELDS))} are yours to choose; leave {named} out."
            raise InvalidRequest(text, code="live_watching", param=named)
        served = await self._directory.resolve(self._model)
        view = merge(self._view, message.view)
        kind = kind_of(view, served)
        performance = self._viewer.performance
        async with performance.speaking:  # or what another performer says meanwhile would be lost
            said = merge({} if message.reset else performance.said, message.picture)
            recipe = await recipe_of(said, served, self._directory) if self._may_perform else None
            self._viewer.want(kind, again=recipe is None)  # a performer is about to get another picture
            self._view = view
            if recipe is not None:
                self._viewer.say(recipe, said, message.id)


def read(text: str | None) -> Message:
    """A message, with the long names of its fields. Raises InvalidRequest for what is no JSON object."""
    if text is None:
        raise InvalidRequest("Send JSON as a text, not as bytes.", code="json_expected")
    try:
        fields = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"This is not JSON: {error}.", code="json_invalid") from error
    if not isinstance(fields, dict):
        raise InvalidRequest('Send a JSON object, such as {"seed": 42}.', code="json_expected")
    id_, reset = fields.pop("id", None), fields.pop("reset", False)
    if not (id_ is None or type(id_) in (str, int)) or len(str(id_)) > MAX_ID_CHARACTERS:
        raise InvalidRequest("id: a number without a fraction, or a short text.", param="id")
    if not isinstance(reset, bool):
        raise InvalidRequest("reset: true or false.", param="reset")
    named: dict[str, Any] = {SHORT_NAMES.get(name, str(name)): value for name, value in fields.items()}
    if named.get("seed") == -1:
        named["seed"] = random_seed()
    view = {name: value for name, value in named.items() if name in VIEW_FIELDS}
    return Message(id_, reset, view, {name: value for name, value in named.items() if name not in VIEW_FIELDS})


def merge(before: Said, change: Said) -> Said:
    """A new object: objects are merged into objects, null takes away, anything else replaces. RFC 7396."""
    merged = dict(before)
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            known = merged.get(name)
            merged[name] = merge(known if isinstance(known, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def kind_of(view: dict[str, Any], served: Served) -> Kind:
    """The files that a connection wants. Raises InvalidRequest."""
    try:
        wanted = LiveView.model_validate(view)
    except ValidationError as error:
        raise errors.invalid(error) from error
    native = (served.resolution, served.resolution)
    size = parse_size(wanted.size, native)
    return Kind(None if size == native else size, FileKind(wanted.format, wanted.compression, wanted.metadata))


async def recipe_of(said: Said, served: Served, directory: ModelDirectory) -> Recipe:
    """The recipe of all that was said. Raises InvalidRequest, NotFound and Conflict."""
    try:
        picture = LivePicture.model_validate(said)
    except ValidationError as error:
        raise errors.invalid(error) from error
    sliders = await sliding.sliders_of(directory, served, picture.sliders)
    body = ImagesIn(
        seed=picture.seed,
        truncation_psi=picture.truncation_psi,
        truncation_cutoff=picture.truncation_cutoff,
        noise_mode=picture.noise_mode,
        label=picture.label,
        prompt=picture.prompt,
        mix=picture.mix,
    )
    (recipe,) = drawing.recipes_for(body, served, sliders)
    if not (picture.latent or picture.cross or picture.variations or sliders):
        return recipe
    try:
        recipe = Recipe(
            **dict(recipe) | {"latent": picture.latent, "cross": picture.cross, "variations": picture.variations}
        )
    except ValidationError as error:  # of what each part may say, all of them together do not
        raise InvalidRequest(reason_of(error), param="cross") from error
    await directory.require_latents(recipe.stored())
    return recipe
