"""Health: whether the service can do its work."""

from typing import Literal

from pydantic import BaseModel, Field


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = Field("ok", description="Always ok.")


class Ready(BaseModel):
    """What the service stands on."""

    status: Literal["ok", "degraded"] = Field(description="degraded: jobs wait until Redis is back.")
    database: Literal["ok"] = Field("ok", description="It takes writes.")
    storage: Literal["ok"] = Field("ok", description="It takes blobs.")
    redis: Literal["ok", "down"] = Field(description="Whether it answers.")
