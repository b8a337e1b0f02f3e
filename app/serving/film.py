"""What a render draws, a loop, a walk, a growth or a sheet: all that determines its frames, in a canonical form."""

import json
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.serving.films.containers import FilmFormat
from app.serving.point import Part, Point, Seed, Sha256, without_empty
from app.serving.recipe import DeviceKind, Dtype, MetadataLevel, Recipe, Side, require_room
from models.latents.easing import EASINGS
from models.latents.noise_loop import MAX_RADIUS

Kind = Literal["loop", "walk", "growth", "grid"]
Path = Literal["slerp", "linear", "spline", "noise"]
Space = Literal["z", "w"]
RenderFormat = FilmFormat | Literal["png"]

MAX_KEYFRAMES: Final = 64
MAX_SHEET: Final = 1024  # pictures of a sheet, or of a frame of a growth
MAX_FRAMES: Final = 7200  # two minutes at 60 a second
MAX_FPS: Final = 60
MAX_CHECKPOINTS: Final = 256
# Great circles are the ways of z, which is spread evenly in all directions; w has its own shape, and bends it.
SPACES: Final[dict[Path, tuple[Space, ...]]] = {
    "slerp": ("z",),
    "linear": ("z", "w"),
    "spline": ("w",),
    "noise": ("z",),
}
# What each kind says, beside what all of them say.
TOLD: Final[dict[Kind, frozenset[str]]] = {
    "loop": frozenset({"path", "space", "easing", "radius", "fps", "phase"}),
    "walk": frozenset({"path", "space", "easing", "fps"}),
    "growth": frozenset({"easing", "fps", "columns", "seeds", "checkpoints"}),
    "grid": frozenset({"columns", "seeds", "checkpoints", "models"}),
}

Fps = Annotated[int, Field(ge=1, le=MAX_FPS)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class FilmRecipe(Part):
    """The frames of a film, or the one of a sheet, with everything written out that has a say in them.

    A loop and a walk go from keyframe to keyframe, a loop back to the first too; or round the first alone, on the path
    noise. A growth shows the same points at every checkpoint in turn. A grid shows every checkpoint's keyframes at
    every seed, on one sheet.
    """

    version: Literal[1] = Field(1, description="Version of this format.")
    kind: Kind = Field(description="What is drawn.")
    model: Name = Field(description="Name of the model; of the last one, where there are several.")
    checkpoint: Sha256 = Field(description="sha256 of the weights; of the last ones, where there are several.")
    checkpoints: tuple[Sha256, ...] = Field((), max_length=MAX_CHECKPOINTS, description="In turn; empty: the one.")
    models: tuple[Name, ...] = Field((), max_length=MAX_CHECKPOINTS, description="Of each checkpoint; empty: the one.")
    keyframes: tuple[Point, ...] = Field(min_length=1, max_length=MAX_KEYFRAMES, description="What is passed.")
    seeds: tuple[Seed, ...] = Field((), max_length=MAX_SHEET, description="Each in place of a keyframe's own seed.")
    path: Path | None = Field(None, description="How it goes from keyframe to keyframe.")
    space: Space | None = Field(None, description="Where: in z, or in w.")
    easing: str | None = Field(None, description="How the way between two keyframes, or checkpoints, is timed.")
    radius: float | None = Field(None, gt=0, le=MAX_RADIUS, description="Of the path noise: how far the loop leads.")
    frames: int = Field(1, ge=1, le=MAX_FRAMES, description="How many.")
    fps: Fps | None = Field(None, description="Frames a second.")
    phase: int = Field(0, ge=0, lt=MAX_FRAMES, description="Frames by which a loop starts later on its way.")
    columns: int | None = Field(None, ge=1, le=MAX_SHEET, description="Pictures in a row of a sheet.")
    size: tuple[Side, Side] = Field(description="Width and height of a picture, pixels; of each one on a sheet.")
    noise_mode: Literal["const", "random", "none"] = Field("const", description="Noise of networks that take it.")
    device: DeviceKind | None = Field(None, description="Kind of device it is painted on; null: whatever there is.")
    dtype: Dtype | None = Field(None, description="Numbers it is painted with; null: those of this machine.")

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        every = frozenset[str]().union(*TOLD.values())
        for name in sorted(every - TOLD[self.kind]):
            if getattr(self, name):
                raise ValueError(f"a {self.kind} says nothing of {name}.")
        if (self.fps is None) != (self.kind == "grid") or (self.columns is None) != (self.kind in {"loop", "walk"}):
            raise ValueError("films have fps, sheets and growths have columns.")
        if self.kind in {"loop", "walk"}:
            self._check_path()
        else:
            self._check_sheet()
        require_room(_canonical.__wrapped__(self))
        return self

    def _check_path(self) -> None:
        if self.path is None or self.space not in SPACES[self.path]:
            raise ValueError(f"the path {self.path} does not lead through {self.space}.")
        if self.phase >= self.frames:
            raise ValueError(f"phase {self.phase} is behind the last of {self.frames} frames.")
        noise = self.path == "noise"
        if (self.radius is None) == noise or (self.easing is None) != noise:
            raise ValueError("the path noise has a radius, every other an easing.")
        if noise and (self.kind != "loop" or len(self.keyframes) != 1):
            raise ValueError("the path noise leads round one keyframe, in a loop.")
        if not noise and len(self.keyframes) < 2:
            raise ValueError("a path leads from keyframe to keyframe: two or more, or one for the path noise alone.")
        self._check_easing()
        if self.space == "z" and not leads_through_z(self.keyframes):
            raise ValueError("these keyframes are no places in z; their path leads through w.")

    def _check_sheet(self) -> None:
        self._check_easing()
        if self.kind == "growth" and (len(self.checkpoints) < 2 or self.easing is None):
            raise ValueError("a growth leads from checkpoint to checkpoint, with an easing: two or more.")
        if self.kind == "grid" and self.frames != 1:
            raise ValueError("a grid has one frame.")
        if self.checkpoints and self.checkpoints[-1] != self.checkpoint:
            raise ValueError("checkpoint is the last of the checkpoints.")
        if self.models and (len(self.models) != len(self.checkpoints) or self.models[-1] != self.model):
            raise ValueError("models names the one of each checkpoint.")
        if self.pictures > MAX_SHEET:
            raise ValueError(f"a sheet holds at most {MAX_SHEET} pictures; these are {self.pictures}.")

    def _check_easing(self) -> None:
        if self.easing is not None and self.easing not in EASINGS:
            raise ValueError(f"there is no easing {self.easing[:40]!r}; there are {', '.join(EASINGS)}.")

    @property
    def pictures(self) -> int:
        """How many a frame shows."""
        checkpoints = max(1, len(self.checkpoints)) if self.kind == "grid" else 1
        return len(self.keyframes) * max(1, len(self.seeds)) * checkpoints

    def canonical_json(self) -> str:
        """Sorted keys, no spaces, ASCII: equal films, equal texts. It opens and ends as a picture's does."""
        return _canonical(self)

    def hash(self) -> str:
        """sha256 of the canonical form, hex."""
        return sha256(self.canonical_json().encode()).hexdigest()

    def parameters_line(self) -> str:
        """The text AUTOMATIC1111 writes in its files, as of a picture: of the first one shown."""
        first = dict(self.keyframes[0]) | ({"seed": self.seeds[0]} if self.seeds else {})
        picture = Recipe(**first, model=self.model, checkpoint=self.checkpoint, size=self.size)
        return f"{picture.parameters_line()}, Render: {self.kind}"

    def stored(self) -> frozenset[str]:
        """sha256 of every stored latent and step that it takes."""
        return frozenset[str]().union(*(point.stored() for point in self.keyframes))


class FilmOrder(BaseModel):
    """The job of drawing a film or a sheet: its recipe, and the file that becomes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(description="What is drawn.")
    film: FilmRecipe = Field(description="All that determines the frames; the worker adds what it is painted on.")
    choose_phase: bool = Field(
        description="Whether a loop starts where it moves least, in place of the recipe's phase."
    )
    format: RenderFormat = Field(description="Kind of file; a grid is a png.")
    lossless: bool = Field(description="Whether the file keeps every pixel as it was painted.")
    metadata: MetadataLevel = Field(description="What the file tells of its making.")
    keep: bool = Field(description="Whether the file becomes an artwork.")


def leads_through_z(keyframes: tuple[Point, ...]) -> bool:
    """Whether each of these points is a z that is mapped and truncated, all in the same layers: what else is done to a
    point is done to its w."""
    return len({point.truncation_cutoff for point in keyframes}) == 1 and not any(
        point.latent or point.cross or point.variations or point.mix for point in keyframes
    )


AnyRecipe = Recipe | FilmRecipe


def read_canonical(text: str) -> AnyRecipe | None:
    """The recipe of a picture or a film from its canonical form; None for any other text."""
    kind = FilmRecipe if '"keyframes":' in text else Recipe
    try:
        recipe: AnyRecipe = kind.model_validate_json(text)
    except ValidationError:
        return None
    return recipe if recipe.canonical_json() == text else None


@lru_cache(64)
def _canonical(recipe: FilmRecipe) -> str:
    fields = recipe.model_dump(mode="json")
    fields["keyframes"] = [_point(point) for point in fields["keyframes"]]
    kept = {name: value for name, value in fields.items() if value not in (None, [])}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"))


def _point(fields: dict[str, object]) -> dict[str, object]:
    """A keyframe, without what says nothing."""
    return {name: value for name, value in without_empty(fields).items() if value not in (None, [])}
