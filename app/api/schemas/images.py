"""Pictures: the request and answer of OpenAI's images API, with what only a GAN can be asked for."""

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.numbers import Whole
from app.serving.point import MAX_LAYERS, Sha256
from app.serving.recipe import MAX_PICTURES, MAX_RECIPE_BYTES, MetadataLevel, OutputFormat, Recipe
from models.latents.seeds import SEED_MAX

PSI_MEANING = "Truncation. 1: as trained; towards 0: towards the typical."
CUTOFF_MEANING = "How many layers are truncated; absent: all."
PROMPT_MEANING = "What to draw; it moves the seed of a model that was trained without captions and labels."
QUALITY_MEANING = "Quality of JPEG and WebP; a WebP of 100 is lossless."

Psi = Annotated[float, Field(ge=-2, le=2)]
Cutoff = Annotated[Whole, Field(ge=0, le=MAX_LAYERS)]
Quality = Annotated[Whole, Field(ge=0, le=100)]
NoiseMode = Literal["const", "random", "none"]


class MixIn(BaseModel):
    """Style mixing."""

    model_config = ConfigDict(extra="ignore")

    seed: Whole = Field(ge=0, le=SEED_MAX, description="Seed that the layers come from.")
    layers: str | list[int] = Field(description='Layers of w, from 0: "4-7", "0,2" or a list.')


class ImagesIn(BaseModel):
    """Pictures to draw. Null is absent; fields of other image services are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = Field(None, max_length=200, description="Name, or name@checkpoint; absent: the default model.")
    prompt: str | None = Field(None, max_length=2000, description=PROMPT_MEANING)
    label: str | None = Field(None, max_length=200, description="Class of a labelled model.")
    n: Whole | None = Field(None, ge=1, le=MAX_PICTURES, description="How many pictures; 1 when absent.")
    best_of: Whole | None = Field(
        None, ge=1, le=MAX_PICTURES, description="Draw so many and answer the n that fit prompt and label best."
    )
    seed: Whole | None = Field(None, ge=-1, le=SEED_MAX, description="Picture i has seed + i; -1 or absent: random.")
    seeds: list[int] | str | None = Field(None, description='The seed of each picture: a list, or "0,1,4-6".')
    truncation_psi: Psi | None = Field(None, description=PSI_MEANING)
    truncation_cutoff: Cutoff | None = Field(None, description=CUTOFF_MEANING)
    sliders: dict[str, float] | None = Field(None, description="How far to go along named directions.")
    mix: MixIn | None = Field(None, description="Style mixing.")
    noise_mode: NoiseMode | None = Field(None, description="Noise of networks that take it.")
    size: str | None = Field(None, description="WxH, by nearest resampling, or auto: the model's own.")
    recipe: Recipe | None = Field(None, description="Of a picture to draw again, in place of all fields above.")
    output_format: OutputFormat | None = Field(None, description="Kind of file; png when absent.")
    output_compression: Quality | None = Field(None, description=QUALITY_MEANING)
    response_format: Literal["b64_json", "url"] | None = Field(None, description="The file, or where to get it.")
    keep: bool | None = Field(None, description="Store the pictures as artworks.")
    metadata: MetadataLevel | None = Field(None, description="What the file tells of its making.")
    stream: bool | None = Field(None, description="Send each picture as an event as soon as it is drawn.")


class ImageQuery(BaseModel):
    """The query of a picture's URL."""

    model_config = ConfigDict(extra="forbid")

    seed: Whole | None = Field(None, ge=-1, le=SEED_MAX, description="Absent or -1: redirects to a chosen one.")
    psi: Psi = Field(0.7, description=PSI_MEANING)
    cutoff: Cutoff | None = Field(None, description=CUTOFF_MEANING)
    noise_mode: NoiseMode = Field("const", description="Noise of networks that take it.")
    label: str | None = Field(None, max_length=200, description="Class of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description=PROMPT_MEANING)
    mix_seed: Whole | None = Field(None, ge=0, le=SEED_MAX, description="Style mixing: seed that layers come from.")
    mix_layers: str | None = Field(None, max_length=200, description='Style mixing: layers such as "4-7".')
    latent: Sha256 | None = Field(None, description="sha256 of a stored w, in the seed's place.")
    cross: str | None = Field(None, max_length=MAX_RECIPE_BYTES, description="Two points to be between, as JSON.")
    variations: str | None = Field(None, max_length=1000, description="Steps to neighbours, seed:strength,...")
    sliders: str | None = Field(None, max_length=8000, description="Steps along named directions, name:amount,...")
    size: str | None = Field(None, description="WxH, by nearest resampling, or auto: the model's own.")
    format: OutputFormat = Field("png", description="Kind of file.")
    compression: Quality | None = Field(None, description=QUALITY_MEANING)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, sent: Any) -> Any:
        """`label=&size=` is how a form sends what was left blank."""
        return {name: value for name, value in sent.items() if value != ""} if isinstance(sent, dict) else sent


class ImageOut(BaseModel):
    """One picture; it has b64_json or url, never both."""

    b64_json: str | None = Field(None, description="The file, in base64.")
    url: str | None = Field(None, description="Where to get the file, for as long as the weights are kept.")
    seed: int = Field(description="The seed it was drawn with.")
    recipe: dict[str, Any] = Field(description="All that determines its pixels.")
    artwork: str | None = Field(None, description="With keep: id of the artwork.")
    match: float | None = Field(None, description="With best_of: how well it fits by D; higher is better.")


class ImagesOut(BaseModel):
    """Pictures."""

    created: int = Field(description="When they were drawn, seconds since 1970.")
    data: list[ImageOut] = Field(description="The pictures, in order.")
    model: str = Field(description="Name of the model.")
    checkpoint: str = Field(description="sha256 of the weights.")
    size: str = Field(description="WxH.")
    output_format: OutputFormat = Field(description="Kind of file.")
    prompt_mode: Literal["hashed"] | None = Field(None, description="hashed: the prompt only moved the seed.")
    matched_terms: list[str] | None = Field(None, description="Words of the prompt that the model was trained with.")
    unknown_terms: list[str] | None = Field(None, description="Words of the prompt that it was not trained with.")


ImageQueryParams = Annotated[ImageQuery, Query()]
