"""Blending: a new model between two of one lineage."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.models import ModelName

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]  # true is no amount


class LayersIn(BaseModel):
    """Some layers, and how much of the other model they get; the others stay."""

    model_config = ConfigDict(extra="forbid")

    layers: str | list[int] = Field(description='Layers from 0, that of 4 pixels: "4-7", "0,2" or a list.')
    amount: Share = Field(1.0, description="0: as they are; 1: the other model's.")


class BlendIn(BaseModel):
    """A model to make of this one and another, whose weights come from the same beginning."""

    model_config = ConfigDict(extra="forbid")

    with_: str = Field(alias="with", max_length=200, description="The other: model, or model@checkpoint.")
    amounts: Share | list[Share] | LayersIn = Field(
        description="How much of the other: one amount, one for each layer from 4 pixels on, or some layers with one."
    )
    mapping: Share | None = Field(
        None,
        description="How much of the other's mapping network, which makes w of a seed; absent: the one amount, else 0.",
    )
    name: ModelName = Field(description="What the new model will be called.")
