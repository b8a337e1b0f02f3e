"""Variations: what the neighbours of a picture, or the children of two, are asked for with."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.api.schemas.forms import Truth
from app.api.schemas.images import QUALITY_MEANING, Quality
from app.api.schemas.numbers import Whole
from app.serving.recipe import MAX_PICTURES, MetadataLevel, OutputFormat
from models.latents.seeds import SEED_MAX

Source = dict[str, Any] | str


class VariationFields(BaseModel):
    """The fields beside the picture. Null is absent; fields of other image services are ignored."""

    model_config = ConfigDict(extra="ignore")

    n: Whole | None = Field(None, ge=1, le=MAX_PICTURES, description="How many pictures; 1 when absent.")
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="0: the picture itself; 1: another one altogether. Absent: 0.3, and 0.1 for children.",
    )
    seed: Whole | None = Field(None, ge=-1, le=SEED_MAX, description="Picture i has seed + i; -1 or absent: random.")
    size: str | None = Field(None, description="WxH, by nearest resampling; auto: the model's own; absent: as it was.")
    output_format: OutputFormat | None = Field(None, description="Kind of file; png when absent.")
    output_compression: Quality | None = Field(None, description=QUALITY_MEANING)
    response_format: Literal["b64_json", "url"] | None = Field(None, description="The file, or where to get it.")
    keep: Truth | None = Field(None, description="Store the pictures as artworks.")
    metadata: MetadataLevel | None = Field(None, description="What the file tells of its making.")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, sent: Any) -> Any:
        """`size=&seed=` is how a form sends what was left blank."""
        return {name: value for name, value in sent.items() if value != ""} if isinstance(sent, dict) else sent


class VariationsIn(VariationFields):
    """Pictures to draw that take after one, or after two."""

    of: Source | list[Source] = Field(
        description="A recipe, the id of an artwork, or a picture's URL; a list of two for their children."
    )


UPLOAD_BODY: dict[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "A PNG, JPEG or WebP that Ganvas made."},
        **VariationFields.model_json_schema()["properties"],
    },
}
