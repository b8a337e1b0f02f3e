"""Looking for a picture in a model's latent space: what is ordered."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.serving.point import Seed, Sha256

MAX_STEPS: Final = 2000
FILM_FPS: Final = 24


class ProjectionOrder(BaseModel):
    """The job of finding a picture: its result is a recipe, and a film of the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["projection"] = Field("projection", description="Always projection.")
    model: str = Field(min_length=1, max_length=200, description="Name of the model.")
    checkpoint: Sha256 = Field(description="sha256 of its weights.")
    target: Sha256 = Field(description="sha256 of the picture's file, as it was sent.")
    seed: Seed = Field(0, description="Of all chance in the search.")
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Of the search; absent: as many as are worth it.")
    film: bool = Field(True, description="Whether a film shows the search.")
