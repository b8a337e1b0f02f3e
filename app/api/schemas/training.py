"""Training: what is asked for."""

from pydantic import BaseModel, ConfigDict, Field

from models.config import TrainConfig


class Budget(BaseModel):
    """When training ends: at whichever comes first."""

    model_config = ConfigDict(extra="forbid")

    kimg: float | None = Field(None, gt=0, le=1e6, description="Thousands of real images shown.")
    minutes: float | None = Field(None, gt=0, le=1e5, description="Minutes of training.")


class TrainingIn(BaseModel):
    """A training to start: a preset, or a whole configuration."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(max_length=40, description="Id of a ready dataset.")
    name: str = Field(max_length=100, description="What the model will be called.")
    preset: str | None = Field(None, max_length=40, description="Name of a recipe for training; tiny when absent.")
    config: TrainConfig | None = Field(None, description="Every setting, in the place of a preset.")
    budget: Budget | None = Field(None, description="In the place of the preset's or configuration's own.")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Seed of the first weights and of all chance.")
