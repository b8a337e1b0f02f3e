"""Models: what an artist names and serves, in OpenAI's shape and more."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.names import MODEL_NAME

# Documented as it is; that it fits is checked in app/core/names.py, which says what a model may be called.
ModelName = Annotated[str, Field(max_length=100, json_schema_extra={"pattern": f"^{MODEL_NAME.pattern}$"})]


class CheckpointOut(BaseModel):
    """One servable state of a model."""

    checkpoint: str = Field(description="sha256 of the weights; 12 digits of it name it: model@checkpoint.")
    kimg: float = Field(description="Thousands of real images it was trained on.")
    bytes: int = Field(description="Size of the weights, bytes.")
    metrics: dict[str, Any] = Field(description="Measured when it was saved.")
    created_at: datetime = Field(description="When it was saved.")


class ModelOut(BaseModel):
    """A model."""

    id: str = Field(description="Its name, or name@checkpoint where that was asked for.")
    object: Literal["model"] = Field("model", description="Always model.")
    created: int = Field(description="When it was made, seconds since 1970.")
    owned_by: str = Field(description="Who made it.")
    architecture: str = Field(description="Family of its networks.")
    modality: str = Field(description="What it makes: image.")
    resolution: int = Field(description="Side of its pictures, pixels.")
    z_dim: int = Field(description="Length of the latent z.")
    w_dim: int = Field(description="Length of the intermediate latent w.")
    num_ws: int = Field(description="Layers of w that can be mixed.")
    labels: list[str] = Field(description="Classes it was trained with.")
    vocabulary: list[str] = Field(description="Words a prompt may use, those of most captions first.")
    directions: list[str] = Field(description="Ways to change its pictures, by name, in the artist's order.")
    checkpoint: str | None = Field(description="sha256 of the weights meant.")
    checkpoints: list[CheckpointOut] = Field(description="All its weights, oldest training first.")
    metrics: dict[str, Any] = Field(description="Of the weights meant.")
    dataset: str | None = Field(description="Name of the dataset it was trained on.")
    job: str | None = Field(description="The job that trained it.")
    license: str | None = Field(description="Licence of the weights.")
    parents: list[str] = Field(description="model@checkpoint of the two it was blended of; none of a trained one.")


class ImportFields(BaseModel):
    """What comes beside a file of weights."""

    model_config = ConfigDict(extra="forbid")

    name: ModelName | None = Field(None, description="What the model shall be called; absent: what the file is.")
    license: str | None = Field(
        None, min_length=1, max_length=200, description="Licence of the weights, where they do not say it themselves."
    )


class MemoryOut(BaseModel):
    """Whether weights are in memory, ready to draw."""

    id: str = Field(description="The model as it was named: its name, or name@checkpoint.")
    object: Literal["model.memory"] = Field("model.memory", description="Always model.memory.")
    checkpoint: str = Field(description="sha256 of the weights meant.")
    loaded: bool = Field(description="Whether they are in memory now.")
    bytes: int = Field(description="Memory they take: the weights as they are used, what a pass needs, and D.")
    seconds: float = Field(description="How long this took; next to nothing where there was nothing to do.")


class Promotion(BaseModel):
    """Which weights the bare name shall mean."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: str = Field(pattern="^[0-9a-f]{12,64}$", description="12 or more hex digits of the sha256.")
