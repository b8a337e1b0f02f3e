"""Directions: how a model's pictures can be changed, found by the machine and named by the artist."""

from typing import Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from app.core.directions import MAX_DIRECTIONS, Method, Standing, State
from app.core.records import Direction, DirectionVector

MAX_FOUND = 64  # at once
MAX_SCALE = 20.0


class FindIn(BaseModel):
    """Directions to find."""

    model_config = ConfigDict(extra="forbid")

    method: Method = Field(
        "sefa", description="sefa: what the networks' first weights answer to most; pca: how w varies most."
    )
    count: int = Field(10, ge=1, le=MAX_FOUND, strict=True, description="How many, the most telling first.")
    layers: str | list[int] | None = Field(
        None, description='Layers of w to change alone, from 0: "0-3", "0,2" or a list; absent: all.'
    )


class DirectionIn(BaseModel):
    """What to change of a direction."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="What to call it; not : ~ , @ and /.")
    scale: float | None = Field(
        None,
        ge=-MAX_SCALE,
        le=MAX_SCALE,
        allow_inf_nan=False,
        description="Standard deviations of w that an amount of 1 goes; below 0: the other way.",
    )
    position: int | None = Field(None, ge=0, lt=MAX_DIRECTIONS, description="Place in the order, from 0.")


class DirectionOut(BaseModel):
    """A direction as the weights meant have it."""

    id: str = Field(description="Its name.")
    object: Literal["direction"] = Field("direction", description="Always direction.")
    name: str = Field(description="What the artist calls it, and sliders do.")
    method: Method = Field(description="How it was found.")
    position: int = Field(description="Place in the artist's order.")
    scale: float = Field(description="Standard deviations of w that an amount of 1 goes.")
    layers: list[int] | None = Field(description="Layers of w that it changes; null: all.")
    checkpoint: str = Field(description="sha256 of the weights meant.")
    state: State = Field(
        description="found in these weights, carried over from others, lost on the way, or waiting to be carried."
    )
    share: float | None = Field(description="Of w's variance, along it; null: not found in these weights.")
    score: float | None = Field(description="How alike pictures change as where it came from, to 1; null: found here.")
    carried_from: str | None = Field(description="sha256 of the weights it was carried over from.")
    strip: str | None = Field(description="Path of a strip that shows what it does; null: it cannot be used.")

    @classmethod
    def of(
        cls, reference: str, checkpoint: str, row: Direction, vector: DirectionVector | None, standing: Standing
    ) -> Self:
        """A row as it is shown; reference: the model as it was named."""
        strip = f"/v1/models/{quote(reference, safe='@')}/directions/{quote(row.name, safe='')}/strip"
        return cls(
            id=row.name,
            name=row.name,
            method=row.method,
            position=row.position,
            scale=row.scale,
            layers=row.layers,
            checkpoint=checkpoint,
            state=standing.state,
            share=None if vector is None else vector.share,
            score=None if vector is None else vector.score,
            carried_from=None if vector is None else vector.carried_from,
            strip=None if standing.offset is None else strip,
        )
