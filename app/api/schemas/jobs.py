"""Jobs: promises to do something long, what happens to them, and the sample sheets they leave."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.core.records import Checkpoint, Job, JobEvent

Kind = Literal["prepare", "train", "render", "project"]
Status = Literal["queued", "running", "succeeded", "failed", "canceled"]


class JobOut(BaseModel):
    """A job."""

    id: str = Field(description="Its id.")
    object: Literal["job"] = Field("job", description="Always job.")
    kind: Kind = Field(description="What it does.")
    status: Status = Field(description="Where it is.")
    position: int | None = Field(description="Jobs before it in the queue; null once it has been taken.")
    progress: float = Field(description="How much is done, 0-1.")
    message: str = Field(description="What it is doing, in a sentence.")
    eta_seconds: float | None = Field(description="Seconds to go, estimated.")
    attempts: int = Field(description="How often a worker took it.")
    created_at: datetime = Field(description="When it was asked for.")
    started_at: datetime | None = Field(description="When a worker first took it.")
    finished_at: datetime | None = Field(description="When it ended.")
    request: dict[str, Any] = Field(description="What was asked for, every default written out.")
    result: dict[str, Any] | None = Field(description="What came of it.")
    error: dict[str, Any] | None = Field(
        description="Why it failed: code, message and, where it was given up, the history of its attempts."
    )

    @classmethod
    def of(cls, row: Job, position: int | None) -> Self:
        """A row as it is shown."""
        fields = {name: getattr(row, name) for name in cls.model_fields if name not in {"object", "position"}}
        return cls(**fields, position=position)


class EventOut(BaseModel):
    """One thing that happened to a job."""

    id: int = Field(description="Sequence number, rising; replay begins behind one.")
    type: str = Field(description="status, tick, snapshot, warning or log.")
    data: dict[str, Any] = Field(description="What happened.")
    created_at: datetime = Field(description="When.")

    @classmethod
    def of(cls, row: JobEvent) -> Self:
        """A row as it is shown."""
        return cls(id=row.id, type=row.type, data=row.data, created_at=row.created_at)


class SampleOut(BaseModel):
    """A sheet of the same seeds, drawn at one moment of a training."""

    kimg: float = Field(description="Thousands of real images shown by then.")
    url: str = Field(description="Path of the sheet, a PNG.")
    checkpoint: str = Field(description="sha256 of the weights that drew it.")
    created_at: datetime = Field(description="When it was drawn.")

    @classmethod
    def of(cls, job_id: str, row: Checkpoint) -> Self:
        """A row as it is shown."""
        url = f"/v1/jobs/{job_id}/samples/{sheet_name(row.kimg)}.png"
        return cls(kimg=row.kimg, url=url, checkpoint=row.sha256, created_at=row.created_at)


def sheet_name(kimg: float) -> str:
    """How a sheet's moment is written in its URL: one decimal."""
    return f"{kimg:.1f}"
