"""Training: what is asked for, and what is advised."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas.jobs import JobOut
from app.api.schemas.lists import Page
from app.api.schemas.models import ModelName
from app.api.schemas.numbers import Whole
from app.api.schemas.webhooks import WebhookIn, WebhookOut
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
    name: ModelName = Field(description="What the model will be called.")
    preset: str | None = Field(None, max_length=40, description="Name of a recipe for training; tiny when absent.")
    config: TrainConfig | None = Field(None, description="Every setting, in the place of a preset.")
    base: str | None = Field(
        None, max_length=200, description="Model, or model@checkpoint, whose weights are where training starts."
    )
    encoder: str | None = Field(
        None,
        max_length=200,
        description="What reads captions and labels: hashed-N, sentence:NAME, or none to learn without them. Absent: "
        "hashed-8192 where the dataset has any, or what reads them for the base of a fine-tune.",
    )
    budget: Budget | None = Field(None, description="In the place of the preset's or configuration's own.")
    seed: Whole | None = Field(None, ge=0, le=2**32 - 1, description="Seed of the first weights and of all chance.")
    webhook: WebhookIn | None = Field(None, description="Where to tell of the job: a URL, or one with a secret.")


class BranchIn(BaseModel):
    """A training that goes on from where another is or was, under other settings and another name."""

    model_config = ConfigDict(extra="forbid")

    name: ModelName = Field(description="What the new model will be called.")
    checkpoint: str | None = Field(
        None,
        pattern="^[0-9a-f]{12,64}$",
        description="12 or more hex digits of one of the job's checkpoints, to start from its weights; absent: from "
        "the exact state that the job saved last.",
    )
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields of the job's config with other values; those of network with a checkpoint alone.",
    )
    budget: Budget | None = Field(None, description="In the place of the config's own; it begins anew either way.")
    seed: Whole | None = Field(None, ge=0, le=2**32 - 1, description="In the place of the config's own.")
    webhook: WebhookIn | None = Field(None, description="Where to tell of the job: a URL, or one with a secret.")


class TrainingOut(JobOut):
    """A training that was just asked for."""

    webhook: WebhookOut | None = Field(description="Where it is told of; only this answer shows it.")


class StageOut(BaseModel):
    """Some point of a training."""

    kimg: float = Field(description="Thousands of real images shown by then.")
    minutes: float | None = Field(description="Minutes until then on the machine that trains; null: not known yet.")


class PresetOut(BaseModel):
    """What a preset would take and give, for one dataset on the machine that trains."""

    id: str = Field(description="Its name.")
    fits: bool = Field(description="Whether it can be trained on this dataset here; `why` says why not.")
    advised: bool = Field(description="Whether it is the one to start with.")
    why: str = Field(description="What it is for and what it takes, or why it does not fit, in a sentence.")
    risk: str | None = Field(description="What may go wrong with this many pictures.")
    conditional: bool = Field(description="Whether the model will take prompts and labels.")
    base: str | None = Field(description="The model it would start from.")
    first_look: StageOut | None = Field(description="When one sees what it becomes.")
    good_result: StageOut | None = Field(description="When there is little more to come.")
    seconds_per_kimg: float | None = Field(description="Speed, as measured.")
    memory_bytes: int | None = Field(description="Most memory in use, of the GPU where one trains; as measured.")
    measuring: bool = Field(description="Whether the measurement is still to come: ask again.")
    note: str | None = Field(description="What the figures have to be taken with.")


class Advice(Page[PresetOut]):
    """Every preset, and which to start with."""

    dataset: str = Field(description="Id of the dataset it is about.")
    images: int = Field(description="Pictures in it.")
    machine: str | None = Field(description="What was measured on; null: nothing was yet.")
    summary: str = Field(description="The advice in a sentence.")
