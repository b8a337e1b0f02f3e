"""Renders: what is asked for."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.forms import Truth
from app.api.schemas.images import PROMPT_MEANING, PSI_MEANING, Cutoff, MixIn, NoiseMode, Psi, Quality
from app.api.schemas.numbers import Whole
from app.serving.film import MAX_CHECKPOINTS, MAX_FPS, MAX_KEYFRAMES, MAX_SHEET, Kind, Path, RenderFormat, Space
from app.serving.point import MAX_VARIATIONS, Cross, Sha256, Slider, Variation
from app.serving.projecting import MAX_STEPS
from app.serving.recipe import MetadataLevel, OutputFormat
from models.latents.easing import EASINGS
from models.latents.noise_loop import MAX_RADIUS
from models.latents.seeds import SEED_MAX

MAX_SECONDS = 7200.0
MAX_MODELS = 16  # side by side
EASING_MEANING = f"How the way between two keyframes is timed: {', '.join(EASINGS)}."

Amounts = dict[str, float]


class KeyframeIn(BaseModel):
    """A place that a path passes. What it leaves out the request says for all."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: Whole | None = Field(None, ge=-1, le=SEED_MAX, description="-1 or absent: random.")
    truncation_psi: Psi | None = Field(None, description=PSI_MEANING)
    truncation_cutoff: Cutoff | None = Field(None, description="How many layers are truncated; absent: all.")
    label: str | None = Field(None, max_length=200, description="Class of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description=PROMPT_MEANING)
    prompt_mode: Literal["hashed"] | None = Field(None, description="As in a recipe; it follows from the model.")
    mix: MixIn | None = Field(None, description="Style mixing.")
    latent: Sha256 | None = Field(None, description="sha256 of a stored w, in the seed's place.")
    cross: Cross | None = Field(None, description="Between two other points, in the seed's place.")
    variations: tuple[Variation, ...] = Field((), max_length=MAX_VARIATIONS, description="Steps to neighbours.")
    sliders: Amounts | tuple[Slider, ...] | None = Field(None, description="Amounts by direction, or as in a recipe.")


class RenderIn(BaseModel):
    """A film or a sheet to draw. Null is absent; of what is absent each kind has its own default."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Kind | Literal["batch"] = Field(description="loop, walk, growth: films; grid: a sheet; batch: many files.")
    model: str | None = Field(None, max_length=200, description="Name, or name@checkpoint; absent: the default model.")
    models: list[str] | None = Field(
        None, min_length=1, max_length=MAX_MODELS, description="Of a grid: several models, or name@checkpoint, by rows."
    )
    checkpoints: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_CHECKPOINTS,
        description="Of a growth or grid: 12 or more hex digits of checkpoints of the model. A growth takes all.",
    )
    seeds: list[int] | str | None = Field(None, description='A list, or "0,1,4-6"; absent: random ones.')
    keyframes: list[dict[str, Any] | str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_KEYFRAMES,
        description="In place of seeds, or as rows of a grid: each the fields of a recipe (seed, prompt, mix, sliders, "
        "...), a whole recipe, the id of an artwork, or the URL of a picture.",
    )
    seconds: float | None = Field(None, gt=0, le=MAX_SECONDS, description="Length of a film; 4 when absent.")
    fps: Whole | None = Field(None, ge=1, le=MAX_FPS, description="Frames a second; 24 when absent.")
    path: Path | None = Field(None, description="slerp when absent, or spline where that cannot be.")
    space: Space | None = Field(
        None, description="slerp and noise lead through z, spline through w, linear either way."
    )
    easing: str | None = Field(None, max_length=40, description=EASING_MEANING)
    radius: float | None = Field(None, gt=0, le=MAX_RADIUS, description="Of noise: how far it leads; 1 when absent.")
    phase: Whole | None = Field(
        None, ge=0, description="Frames by which a loop starts later; absent: where it is calm."
    )
    size: str | None = Field(None, description="WxH of a picture, by nearest resampling, or auto: the model's own.")
    columns: Whole | None = Field(None, ge=1, le=MAX_SHEET, description="Pictures in a row of a sheet.")
    format: RenderFormat | None = Field(None, description="Kind of file; mp4 when absent, and png of a grid.")
    output_format: OutputFormat | None = Field(None, description="Of a batch: the files in the zip; png when absent.")
    output_compression: Quality | None = Field(None, description="Of a batch: quality of JPEG and WebP.")
    lossless: bool | None = Field(None, description="Keep every pixel, of mp4, webm and webp; zip and png always do.")
    metadata: MetadataLevel | None = Field(None, description="What the file tells of its making.")
    keep: bool | None = Field(None, description="Store the file as an artwork.")
    label: str | None = Field(None, max_length=200, description="Class of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description=PROMPT_MEANING)
    truncation_psi: Psi | None = Field(None, description=PSI_MEANING)
    truncation_cutoff: Cutoff | None = Field(None, description="How many layers are truncated; absent: all.")
    sliders: Amounts | None = Field(None, description="How far to go along named directions.")
    noise_mode: NoiseMode | None = Field(None, description="Noise of networks that take it.")


class ProjectionIn(BaseModel):
    """A picture to look for in a model's latent space. Null is absent."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["projection"] = Field(description="Always projection.")
    model: str | None = Field(None, max_length=200, description="Name, or name@checkpoint; absent: the default model.")
    of: dict[str, Any] | str | None = Field(
        None, description="A recipe, the id of an artwork, or the URL of a picture, of any model; or send a file."
    )
    seed: Whole | None = Field(None, ge=-1, le=SEED_MAX, description="Of all chance; 0 when absent, -1: random.")
    steps: Whole | None = Field(None, ge=1, le=MAX_STEPS, description="Of the search; absent: as many as are worth it.")
    film: Truth = Field(True, description="Whether a film shows the search.")
