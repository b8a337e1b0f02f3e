"""Datasets: artwork prepared for training, and what became of every file."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.core.records import Dataset


class DatasetFields(BaseModel):
    """The fields beside the files of an upload."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="What the artist calls it.")
    resolution: int | None = Field(
        None, ge=16, le=1024, description="Side of the prepared pictures, pixels, a power of two; absent: what fits."
    )
    crop: Literal["center", "none"] = Field("center", description="Fit to a square: cut the middle, or pad.")
    background: str = Field("white", max_length=40, description="Colour put behind transparency and padding.")

    @field_validator("resolution", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: str | None) -> str | None:
        return value or None  # what a form sends for a field left blank

    @field_validator("resolution")
    @classmethod
    def _is_a_power_of_two(cls, value: int | None) -> int | None:
        if value is not None and value.bit_count() != 1:
            raise ValueError("must be a power of two, such as 64")
        return value


class DatasetOut(BaseModel):
    """A dataset."""

    id: str = Field(description="Its id.")
    object: Literal["dataset"] = Field("dataset", description="Always dataset.")
    name: str = Field(description="What the artist calls it.")
    modality: str = Field(description="What it holds: image.")
    status: Literal["preparing", "ready", "failed"] = Field(description="Whether it can be trained on.")
    count: int = Field(description="Items kept.")
    sent: int = Field(description="Files received; the verdicts add up to it.")
    resolution: int | None = Field(description="Side of the prepared pictures, pixels.")
    captions: int = Field(description="Items with a caption.")
    labels: list[str] = Field(description="Classes, in order.")
    verdicts: dict[str, int] = Field(description="How many files got each verdict.")
    readiness: str | None = Field(description="How well it is suited for training, in a sentence.")
    bytes: int = Field(description="Size of the prepared pictures, bytes.")
    error: dict[str, Any] | None = Field(description="Why it failed: code and message.")
    job: str | None = Field(description="The job that prepares it.")
    created_at: datetime = Field(description="When it was uploaded.")

    @classmethod
    def of(cls, row: Dataset) -> Self:
        """A row as it is shown."""
        fields = {name: getattr(row, name) for name in cls.model_fields if name not in {"object", "job"}}
        return cls(**fields, job=row.job_id)


class Item(BaseModel):
    """One file that was sent."""

    index: int = Field(description="Its place among the files, from 0.")
    file_name: str = Field(description="The name its sender gave it.")
    verdict: str = Field(description="ok, or what is special about it, in a word.")
    reason: str | None = Field(None, description="The verdict in a sentence.")
    fixes: list[str] = Field(default_factory=list, description="What was done to make it fit.")
    position: int | None = Field(None, description="Its row in the prepared array; null where it was left out.")
    caption: str | None = Field(None, description="Its caption.")
    label: str | None = Field(None, description="Its class.")
    width: int | None = Field(None, description="Width as sent, pixels.")
    height: int | None = Field(None, description="Height as sent, pixels.")


class ItemOut(Item):
    """One file that was sent, with where to see it."""

    id: str = Field(description="Its id within the dataset: the index.")
    thumbnail: str | None = Field(description="Path of the prepared picture; null where it was left out.")


class Manifest(BaseModel):
    """The part of a prepared dataset's manifest that is shown."""

    items: list[Item]
