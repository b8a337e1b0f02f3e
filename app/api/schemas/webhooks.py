"""Webhooks: where to tell of a job, and what the messages are signed with."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.webhooks.addresses import LONGEST_URL


def _or_a_url(schema: dict[str, Any]) -> None:
    """Say that the URL alone will do."""
    whole = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string", "maxLength": LONGEST_URL, "description": "Its url alone."}, whole]


class WebhookIn(BaseModel):
    """Where to tell of a job."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_or_a_url)

    url: str = Field(
        max_length=LONGEST_URL, description="http or https URL of a public host, on port 80, 443, 8080 or 8443."
    )
    secret: str | None = Field(
        None,
        json_schema_extra={"pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"},
        description="What messages are signed with: whsec_ and 24 to 64 bytes in base64. Absent: one is made.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class WebhookOut(BaseModel):
    """Where a job is told of."""

    url: str = Field(description="Where messages go.")
    secret: str = Field(description="What they are signed with; shown this once.")
