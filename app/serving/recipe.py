"""A recipe is a picture: all that determines its pixels, with its URL, hash and A1111 line."""

import json
import secrets
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote, urlencode

from pydantic import Field, ValidationError, model_validator

from app.core.errors import InvalidRequest
from app.serving.point import MAX_LAYERS, MAX_VARIATIONS, Cross, Point, Sha256, Variation, without_empty
from app.serving.point import Mix as Mix  # noqa: PLC0414 for those who make recipes
from models.errors import SeedsInvalid
from models.latents.seeds import SEED_MAX, parse_seeds

OutputFormat = Literal["png", "jpeg", "webp"]
MetadataLevel = Literal["full", "minimal"]
DeviceKind = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]

MAX_PICTURES = 64  # of one request: two passes of the largest batch
MAX_SIDE = 2048  # pixels; a picture is resampled on the way out, and this bounds what one request can cost
MAX_RECIPE_BYTES: Final = 65_000  # of a canonical form: a JPEG has room for no more, nor has a header in many clients
# The canonical form's first and last key: sorted, and with its quotes, which JSON escapes wherever else they stand.
RECIPE_OPENS: Final = b'{"checkpoint":"'
RECIPE_ENDS: Final = b'"version":1}'
REMEMBERED = 1024  # canonical forms: a request needs its own for the hash, the header and the file

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Recipe(Point):
    """What was asked, with every default written out: one device and dtype give the same pixels for ever."""

    version: Literal[1] = Field(1, description="Version of this format.")
    model: str = Field(min_length=1, max_length=200, description="Name of the model.")
    checkpoint: Sha256 = Field(description="sha256 of the weights.")
    noise_mode: Literal["const", "random", "none"] = Field("const", description="Noise of networks that take it.")
    size: tuple[Side, Side] = Field(description="Width and height, pixels; nearest resampling of the model's own.")
    device: DeviceKind | None = Field(None, description="Kind of device it is painted on; null: whatever there is.")
    dtype: Dtype | None = Field(None, description="Numbers it is painted with; null: those of this machine.")

    @model_validator(mode="after")
    def _of_a_length(self) -> Self:
        if not self.plain:  # the longest texts alone are half of what there is room for
            require_room(_canonical.__wrapped__(self))  # which is not worth remembering yet
        return self

    def point(self) -> Point:
        """What it draws, without where and how large."""
        return Point(**{name: getattr(self, name) for name in Point.model_fields})

    def canonical_json(self) -> str:
        """Sorted keys, no spaces, ASCII, every field, the runtime's where it is known: equal recipes, equal texts."""
        return _canonical(self)

    def hash(self) -> str:
        """sha256 of the canonical form, hex."""
        return sha256(self.canonical_json().encode()).hexdigest()

    def url(self, output_format: OutputFormat = "png", compression: int | None = None) -> str:
        """The path of this picture, its checkpoint pinned; what is at its default is left out, psi and size never."""
        query: dict[str, str | int | float] = {"seed": self.seed, "psi": self.truncation_psi}
        if self.truncation_cutoff is not None:
            query["cutoff"] = self.truncation_cutoff
        if self.noise_mode != "const":
            query["noise_mode"] = self.noise_mode
        for name in ("label", "prompt"):
            if (text := getattr(self, name)) is not None:
                query[name] = text
        if self.mix is not None:
            query |= {"mix_seed": self.mix.seed, "mix_layers": ",".join(map(str, self.mix.layers))}
        query |= self._later_query()
        query |= {"size": f"{self.size[0]}x{self.size[1]}", "format": output_format}
        if compression is not None:
            query["compression"] = compression
        return (
            f"/v1/models/{quote(self.model, safe='')}@{self.checkpoint[:12]}/image?{urlencode(query, quote_via=quote)}"
        )

    def _later_query(self) -> dict[str, str]:
        """What no seed says. Sliders and latents name what is stored, so that the picture stays the same."""
        query = {}
        if self.latent is not None:
            query["latent"] = self.latent
        if self.cross is not None:
            query["cross"] = cross_json(self.cross)
        if self.variations:
            query["variations"] = ",".join(f"{step.seed}:{step.strength!r}" for step in self.variations)
        if self.sliders:
            query["sliders"] = ",".join(f"{step.name}~{step.offset}:{step.amount!r}" for step in self.sliders)
        return query

    def parameters_line(self) -> str:
        """The text AUTOMATIC1111 writes in its files, which galleries and sorters read: prompt, then key: value."""
        values = {
            "Steps": "1",
            "Sampler": "GAN",
            "Seed": str(self.seed),
            "Size": f"{self.size[0]}x{self.size[1]}",
            "Model hash": self.checkpoint[:10],
            "Model": self.model,
            "Truncation psi": f"{self.truncation_psi:g}",
        }
        if self.label is not None:
            values["Label"] = self.label
        line = ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items())
        return line if self.prompt is None else f"{self.prompt}\n{line}"


def cross_json(cross: Cross) -> str:
    """A crossing as it is written in a URL."""
    return json.dumps(without_empty({"cross": cross.model_dump(mode="json")})["cross"], separators=(",", ":"))


def require_room(canonical: str) -> None:
    """ValueError for the canonical form of a recipe that no file could carry."""
    if len(canonical) > MAX_RECIPE_BYTES:
        raise ValueError(f"its JSON has {len(canonical):,} bytes; files carry at most {MAX_RECIPE_BYTES:,}.")


@lru_cache(REMEMBERED)
def _canonical(recipe: Recipe) -> str:
    fields = without_empty(recipe.model_dump(mode="json"))
    for name in ("device", "dtype"):  # recipes from before they were written down keep their hash
        if fields[name] is None:
            del fields[name]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _quoted(value: str) -> str:
    """A value as A1111's reader takes it: in JSON's quotes where it holds a separator."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def random_seed() -> int:
    """A seed nobody could have guessed."""
    return secrets.randbelow(SEED_MAX + 1)


def seeds_for(seed: int | None, seeds: str | Sequence[int] | None, n: int = 1) -> list[int]:
    """The seed of each picture: `seeds` as listed ("0,1,4-6" or numbers), else seed, seed + 1 ... for n pictures.

    No seed, or -1, is a random one. Raises InvalidRequest.
    """
    if not 1 <= n <= MAX_PICTURES:
        raise InvalidRequest(f"n is {n}; ask for 1 to {MAX_PICTURES} pictures at once.", param="n")
    if seeds is not None:
        return _listed(seeds, n)
    if seed is not None and not -1 <= seed <= SEED_MAX:
        raise InvalidRequest(f"seed is {seed}; give 0 to {SEED_MAX}, or -1 for a random one.", param="seed")
    first = random_seed() if seed is None or seed == -1 else seed
    return [(first + item) % (SEED_MAX + 1) for item in range(n)]


def _listed(seeds: str | Sequence[int], n: int) -> list[int]:
    listed = listed_seeds(seeds, MAX_PICTURES)
    if n not in (1, len(listed)):
        raise InvalidRequest(f"n is {n} and seeds lists {len(listed)}; leave n out.", param="n")
    return listed


def listed_seeds(seeds: str | Sequence[int], limit: int) -> list[int]:
    """Seeds of "0,1,4-6" or a list, at most so many; -1 is a random one. Raises InvalidRequest."""
    try:
        listed = parse_seeds(seeds, limit=limit) if isinstance(seeds, str) else list(seeds)
    except SeedsInvalid as error:
        raise InvalidRequest(str(error), param="seeds") from error
    if not 1 <= len(listed) <= limit:
        raise InvalidRequest(f"seeds lists {len(listed)}; list 1 to {limit}.", param="seeds")
    for seed in listed:
        if not -1 <= seed <= SEED_MAX:
            raise InvalidRequest(f"seeds has {seed}; give 0 to {SEED_MAX}, or -1 for a random one.", param="seeds")
    return [random_seed() if seed == -1 else seed for seed in listed]


def parse_size(text: str | None, native: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of "WxH"; null and "auto" are the model's own. Raises InvalidRequest."""
    if text is None or text == "auto":
        return native
    width, _, height = text.partition("x")
    if all(side.isascii() and side.isdecimal() and len(side) <= 4 for side in (width, height)):
        size = int(width), int(height)
        if all(1 <= side <= MAX_SIDE for side in size):
            return size
    raise InvalidRequest(
        f"size is {text[:40]!r}; give auto, or WxH with sides of 1 to {MAX_SIDE} pixels.", param="size"
    )


def parse_variations(text: str) -> tuple[Variation, ...]:
    """Steps of "seed:strength,seed:strength". Raises InvalidRequest."""
    steps = [step.partition(":") for step in text.split(",")]
    message = f"variations is {text[:40]!r}; give up to {MAX_VARIATIONS} seed:strength, each strength from 0 to 1."
    if len(steps) > MAX_VARIATIONS:
        raise InvalidRequest(message, param="variations")
    try:
        return tuple(Variation.model_validate_strings({"seed": seed, "strength": far}) for seed, _, far in steps)
    except ValidationError as error:
        raise InvalidRequest(message, param="variations") from error


def parse_cross(text: str) -> Cross:
    """A crossing as `cross_json` writes it. Raises InvalidRequest."""
    try:
        return Cross.model_validate_json(text)
    except ValidationError as error:
        raise InvalidRequest(f"cross is no JSON of two points: {reason_of(error)}", param="cross") from error


def reason_of(error: ValidationError) -> str:
    """The first thing that is wrong, with its place."""
    first: Any = error.errors(include_url=False, include_input=False)[0]
    place, message = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    return f"{place}: {message}." if place else f"{message}."


def parse_layers(text: str) -> tuple[int, ...]:
    """Layers of "4-7" or "0,2". Raises InvalidRequest."""
    try:
        return tuple(parse_seeds(text, limit=MAX_LAYERS))
    except SeedsInvalid as error:
        raise InvalidRequest(
            f"mix layers: {text[:40]!r} is not a list of layers such as 0,2 or 4-7.", param="mix"
        ) from error
