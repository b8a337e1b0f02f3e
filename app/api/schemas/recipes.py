"""Recipes: what proving a file says."""

from typing import Any, Final

from pydantic import BaseModel, Field

UPLOAD_BODY: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "A picture, sheet, film or zip that Ganvas made, with its recipe inside.",
        }
    },
}


class DifferenceOut(BaseModel):
    """How a file differs from what its recipe gives; what is absent is not known, or has nothing to say."""

    reason: str = Field(description="What may have made the difference, in words.")
    size: tuple[int, int] | None = Field(None, description="Width and height of the file, where not the recipe's.")
    frames: int | None = Field(None, description="Frames of a film, or pictures of a zip, that differ.")
    first: int | None = Field(None, description="Number of the first frame that differs, from 0.")
    altered: list[str] | None = Field(None, description="Of a zip: the first names of pictures that differ.")
    missing: list[str] | None = Field(None, description="Of a zip: the first names of frames that are not there.")
    added: list[str] | None = Field(None, description="Of a zip: the first names that no recipe accounts for.")
    pixels: int | None = Field(None, description="Pixels that differ, in all frames together.")
    share: float | None = Field(None, description="Their share of all pixels.")
    max: int | None = Field(None, description="Largest difference of a channel, in levels of 255.")
    mean: float | None = Field(None, description="Mean difference of all channels of all pixels, in levels of 255.")


class VerifiedOut(BaseModel):
    """Whether a file is what the recipe in it says."""

    recipe: dict[str, Any] | None = Field(
        None, description="The recipe that the file holds; absent for a zip of pictures that have one each."
    )
    identical: bool = Field(description="Whether each pixel is what the recipe gives.")
    pictures: int | None = Field(None, description="Of a film, sheet or zip: how many pictures it takes.")
    difference: DifferenceOut | None = Field(None, description="Absent where there is none.")
