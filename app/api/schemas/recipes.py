"""Recipes: what proving a file says."""

from typing import Any

from pydantic import BaseModel, Field


class DifferenceOut(BaseModel):
    """How a file differs from what its recipe gives; the counts are absent where the two cannot be compared."""

    reason: str = Field(description="What may have made the difference, in words.")
    size: tuple[int, int] | None = Field(None, description="Width and height of the file, where not the recipe's.")
    pixels: int | None = Field(None, description="Pixels that differ.")
    share: float | None = Field(None, description="Their share of all pixels.")
    max: int | None = Field(None, description="Largest difference of a channel, in levels of 255.")
    mean: float | None = Field(None, description="Mean difference of all channels of all pixels, in levels of 255.")


class VerifiedOut(BaseModel):
    """Whether a file is the picture of the recipe in it."""

    recipe: dict[str, Any] = Field(description="The recipe that the file holds.")
    identical: bool = Field(description="Whether each pixel is what the recipe gives.")
    difference: DifferenceOut | None = Field(None, description="Absent where there is none.")
