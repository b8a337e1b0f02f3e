"""Live: what a connection says of itself, of its files, and of the picture."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.images import (
    CUTOFF_MEANING,
    PROMPT_MEANING,
    PSI_MEANING,
    QUALITY_MEANING,
    Cutoff,
    MixIn,
    NoiseMode,
    Psi,
    Quality,
)
from app.serving.point import MAX_VARIATIONS, Cross, Sha256, Variation
from app.serving.recipe import MetadataLevel, OutputFormat
from models.latents.seeds import SEED_MAX

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class LiveQuery(BaseModel):
    """The query of a live URL."""

    model_config = ConfigDict(extra="forbid")

    performance: Name | None = Field(None, description="The performance to play; absent: one of its own.")
    watch: Name | None = Field(None, description="The performance to watch.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.performance is not None and self.watch is not None:
            raise ValueError("give performance, to play it, or watch, not both.")
        return self


class LiveView(BaseModel):
    """The files that a connection wants."""

    model_config = ConfigDict(extra="forbid")

    size: str | None = Field(None, description="WxH, by nearest resampling, or auto: the model's own.")
    format: OutputFormat = Field("webp", description="Kind of file.")
    compression: Quality | None = Field(None, description=QUALITY_MEANING)
    metadata: MetadataLevel = Field("minimal", description="What the file tells of its making.")


class LiveMix(MixIn):
    """Style mixing; what is not known is not kept."""

    model_config = ConfigDict(extra="forbid")


class LivePicture(BaseModel):
    """All that was said of a picture. What was not said is at its default; a live seed is, and no chance."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, ge=0, le=SEED_MAX, description="Names the latent.")
    truncation_psi: Psi = Field(0.7, description=PSI_MEANING)
    truncation_cutoff: Cutoff | None = Field(None, description=CUTOFF_MEANING)
    noise_mode: NoiseMode = Field("const", description="Noise of networks that take it.")
    label: str | None = Field(None, max_length=200, description="Class of a labelled model.")
    prompt: str | None = Field(None, max_length=2000, description=PROMPT_MEANING)
    mix: LiveMix | None = Field(None, description="Style mixing.")
    latent: Sha256 | None = Field(None, description="sha256 of a stored w, in the seed's place.")
    cross: Cross | None = Field(None, description="Between two points, in the seed's place.")
    variations: tuple[Variation, ...] = Field((), max_length=MAX_VARIATIONS, description="Steps to neighbours.")
    sliders: dict[str, float] = Field({}, description="How far to go along named directions.")
