"""A point in a model's latent space, as a recipe says it: a seed, or what was made of seeds, and where that leads."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.latents.seeds import SEED_MAX

MAX_LAYERS: Final = 64  # more than any generator has
MAX_VARIATIONS: Final = 16  # of variations; further ones start from a new picture
MAX_SLIDERS: Final = 32
MAX_AMOUNT: Final = 20.0  # of a slider, in its own measure; pictures fall apart long before
MAX_POINTS: Final = 32  # that a point is made of, all parents and theirs
SLIDER_NAME: Final = r"^[^\s:~,@/][^:~,@/\n\r\t]{0,59}$"  # what separates sliders in a URL is no part of a name
LATER: Final = ("latent", "cross", "variations", "sliders")  # fields from after the first recipes: absent where empty

Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]
Layer = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Part(BaseModel):
    """Base of what recipes are made of: it never changes, and says nothing it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mix(Part):
    """Style mixing: these layers of w come from another seed."""

    seed: Seed = Field(description="Seed that the layers are taken from.")
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=MAX_LAYERS, description="Layers of w, from 0.")


class Variation(Part):
    """A step to a neighbour in w."""

    seed: Seed = Field(description="Names the direction of the step.")
    strength: float = Field(ge=0, le=1, description="0: the picture itself; 1: another one altogether.")


class Slider(Part):
    """A step along a named direction. What is stored under `offset` is what counts: names and scales may change."""

    name: str = Field(pattern=SLIDER_NAME, description="What the artist calls it.")
    amount: float = Field(ge=-MAX_AMOUNT, le=MAX_AMOUNT, description="How far; 0: nowhere.")
    offset: Sha256 = Field(description="sha256 of the stored step of amount 1, [num_ws, w_dim].")

    @field_validator("amount")
    @classmethod
    def _one_zero(cls, amount: float) -> float:
        return amount + 0.0


class Point(Part):
    """Which w a picture has: where it starts, how far that is pulled to the typical, and the steps taken from there."""

    seed: Seed = Field(description="Names the latent z, together with the prompt where that is hashed.")
    truncation_psi: float = Field(0.7, ge=-2, le=2, description="1: as trained; towards 0: towards the typical.")
    truncation_cutoff: int | None = Field(None, ge=0, le=MAX_LAYERS, description="Layers truncated; null: all.")
    label: str | None = Field(None, max_length=200, description="Class, of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description="Text the picture was asked for with.")
    prompt_mode: Literal["hashed"] | None = Field(
        None, description="hashed: the prompt only shifts the seed, of a model that knows no texts; null: it is drawn."
    )
    mix: Mix | None = Field(None, description="Style mixing.")
    latent: Sha256 | None = Field(None, description="sha256 of a stored w, [num_ws, w_dim], in the seed's place.")
    cross: "Cross | None" = Field(None, description="Between two other points, in the seed's place.")
    variations: tuple[Variation, ...] = Field((), max_length=MAX_VARIATIONS, description="Steps to neighbours.")
    sliders: tuple[Slider, ...] = Field((), max_length=MAX_SLIDERS, description="Steps along named directions.")

    @field_validator("truncation_psi")
    @classmethod
    def _one_zero(cls, psi: float) -> float:
        return psi + 0.0  # -0.0 and 0.0 are one picture, so one hash

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.prompt_mode == "hashed" and (self.prompt is None or self.label is not None):
            raise ValueError("hashed is said of a prompt, and of a model without labels.")
        if self.latent is not None and self.cross is not None:
            raise ValueError("a point starts from a latent or between two others, not both.")
        if (self.latent or self.cross) is not None and (self.prompt or self.label or self.prompt_mode) is not None:
            raise ValueError("prompt and label say what a seed draws; here is another start.")
        if self.cross is not None and self.mix is not None:
            raise ValueError("layers are mixed into the points that are crossed.")
        if sum(1 for _ in self.points()) > MAX_POINTS:
            raise ValueError(f"it is made of more than {MAX_POINTS} points; store one of its parents as a latent.")
        return self

    @property
    def plain(self) -> bool:
        """Whether a seed and what is told with it say everything: no stored latent, crossing or step."""
        return self.latent is None and self.cross is None and not self.variations and not self.sliders

    @property
    def text(self) -> str:
        """What the networks are told, the prompt and then the label, which is a caption as any other; "" is nothing."""
        if self.prompt_mode == "hashed":
            return ""
        return " ".join(part for part in (self.prompt, self.label) if part is not None)

    @property
    def latent_seed(self) -> int:
        """The seed z is drawn from: the point's own, moved by the prompt's hash where that is all a prompt can do."""
        if self.prompt is None or self.prompt_mode is None:
            return self.seed
        return (prompt_seed(self.prompt) + self.seed) % (SEED_MAX + 1)

    def points(self) -> Iterator["Point"]:
        """This point, and all it was crossed of."""
        yield self
        if self.cross is not None:
            yield from self.cross.first.points()
            yield from self.cross.second.points()

    def stored(self) -> frozenset[str]:
        """sha256 of every stored latent and step that it takes."""
        names = {point.latent for point in self.points() if point.latent is not None}
        return frozenset(names | {slider.offset for point in self.points() for slider in point.sliders})


class Cross(Part):
    """Between two points: first + amount * (second - first), in the given layers of w."""

    first: Point = Field(description="At amount 0, and in all other layers.")
    second: Point = Field(description="At amount 1.")
    amount: float = Field(ge=0, le=1, description="How far from the first to the second.")
    layers: tuple[Layer, ...] | None = Field(None, min_length=1, max_length=MAX_LAYERS, description="Null: all.")


Point.model_rebuild()


def prompt_seed(prompt: str) -> int:
    """A uint32 of a prompt: upper and lower case, and any run of white space, are the same prompt."""
    text = " ".join(prompt.casefold().split())
    return int.from_bytes(sha256(text.encode()).digest()[:4])


def without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    """A point's fields for the canonical form, without those from after the first recipes that say nothing; inside of
    a crossing, without any that says nothing."""
    kept = {name: value for name, value in fields.items() if name not in LATER or value}
    if cross := kept.get("cross"):
        kept["cross"] = _without_any_empty(cross)
    return kept


def _without_any_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _without_any_empty(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if value is not None and value != []
    }
