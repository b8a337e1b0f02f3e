"""A recipe is a picture: all that determines its pixels, with its URL, hash and A1111 line."""

import json
import secrets
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.core.errors import InvalidRequest
from models.errors import SeedsInvalid
from models.latents.seeds import SEED_MAX, parse_seeds

OutputFormat = Literal["png", "jpeg", "webp"]
MetadataLevel = Literal["full", "minimal"]
DeviceKind = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]

MAX_PICTURES = 64  # of one request: two passes of the largest batch
MAX_SIDE = 2048  # pixels; a picture is resampled on the way out, and this bounds what one request can cost
REMEMBERED = 1024  # canonical forms: a request needs its own for the hash, the header and the file
MAX_LAYERS = 64  # more than any generator has

Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Layer = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]


class Mix(BaseModel):
    """Style mixing: these layers of w come from another seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Seed = Field(description="Seed that the layers are taken from.")
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=MAX_LAYERS, description="Layers of w, from 0.")


class Recipe(BaseModel):
    """What was asked, with every default written out: one device and dtype give the same pixels for ever."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = Field(1, description="Version of this format.")
    model: str = Field(min_length=1, max_length=200, description="Name of the model.")
    checkpoint: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the weights.")
    seed: Seed = Field(description="Names the latent z, together with the prompt where that is hashed.")
    truncation_psi: float = Field(0.7, ge=-2, le=2, description="1: as trained; towards 0: towards the typical.")
    truncation_cutoff: int | None = Field(None, ge=0, le=MAX_LAYERS, description="Layers truncated; null: all.")
    noise_mode: Literal["const", "random", "none"] = Field("const", description="Noise of networks that take it.")
    size: tuple[Side, Side] = Field(description="Width and height, pixels; nearest resampling of the model's own.")
    label: str | None = Field(None, max_length=200, description="Class, of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description="Text the picture was asked for with.")
    prompt_mode: Literal["hashed"] | None = Field(
        None, description="hashed: the prompt only shifts the seed, of a model that knows no texts; null: it is drawn."
    )
    mix: Mix | None = Field(None, description="Style mixing.")
    device: DeviceKind | None = Field(None, description="Kind of device it is painted on; null: whatever there is.")
    dtype: Dtype | None = Field(None, description="Numbers it is painted with; null: those of this machine.")

    @field_validator("truncation_psi")
    @classmethod
    def _one_zero(cls, psi: float) -> float:
        return psi + 0.0  # -0.0 and 0.0 are one picture, so one hash

    @model_validator(mode="after")
    def _hashed_is_a_prompt_alone(self) -> Self:
        if self.prompt_mode == "hashed" and (self.prompt is None or self.label is not None):
            raise ValueError("hashed is said of a prompt, and of a model without labels.")
        return self

    @property
    def text(self) -> str:
        """What the networks are told, the prompt and then the label, which is a caption as any other; "" is nothing."""
        if self.prompt_mode == "hashed":
            return ""
        return " ".join(part for part in (self.prompt, self.label) if part is not None)

    @property
    def latent_seed(self) -> int:
        """The seed z is drawn from: the recipe's own, moved by the prompt's hash where that is all a prompt can do."""
        if self.prompt is None or self.prompt_mode is None:
            return self.seed
        return (prompt_seed(self.prompt) + self.seed) % (SEED_MAX + 1)

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
        query |= {"size": f"{self.size[0]}x{self.size[1]}", "format": output_format}
        if compression is not None:
            query["compression"] = compression
        return (
            f"/v1/models/{quote(self.model, safe='')}@{self.checkpoint[:12]}/image?{urlencode(query, quote_via=quote)}"
        )

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


@lru_cache(REMEMBERED)
def _canonical(recipe: Recipe) -> str:
    fields = recipe.model_dump(mode="json")
    for name in ("device", "dtype"):  # recipes from before they were written down keep their hash
        if fields[name] is None:
            del fields[name]
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _quoted(value: str) -> str:
    """A value as A1111's reader takes it: in JSON's quotes where it holds a separator."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def prompt_seed(prompt: str) -> int:
    """A uint32 of a prompt: upper and lower case, and any run of white space, are the same prompt."""
    text = " ".join(prompt.casefold().split())
    return int.from_bytes(sha256(text.encode()).digest()[:4])


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
    try:
        listed = parse_seeds(seeds, limit=MAX_PICTURES) if isinstance(seeds, str) else list(seeds)
    except SeedsInvalid as error:
        raise InvalidRequest(str(error), param="seeds") from error
    if not 1 <= len(listed) <= MAX_PICTURES:
        raise InvalidRequest(f"seeds lists {len(listed)}; list 1 to {MAX_PICTURES}.", param="seeds")
    if n not in (1, len(listed)):
        raise InvalidRequest(f"n is {n} and seeds lists {len(listed)}; leave n out.", param="n")
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


def parse_layers(text: str) -> tuple[int, ...]:
    """Layers of "4-7" or "0,2". Raises InvalidRequest."""
    try:
        return tuple(parse_seeds(text, limit=MAX_LAYERS))
    except SeedsInvalid as error:
        raise InvalidRequest(
            f"mix layers: {text[:40]!r} is not a list of layers such as 0,2 or 4-7.", param="mix"
        ) from error
