"""API keys: what one may do, and, once, the key itself."""

from datetime import datetime
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.api.deps import KeyScope
from app.core.keys import MAX_ORIGINS
from app.core.records import ApiKey


class KeyIn(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="Whose key it is, or what for.")
    scopes: list[KeyScope] = Field(
        default=["generate"], min_length=1, max_length=3, description="What it opens; admin opens all."
    )
    model: str | None = Field(None, max_length=100, description="The only model it draws from; null is all.")
    rate: str | None = Field(
        None,
        max_length=40,
        description="Most requests, as 10/second, 60/minute, 1000/hour or 5000/day; null is the studio's own rate, and "
        "60/minute of a publishable key.",
    )
    origins: list[str] = Field(
        default=[],
        max_length=MAX_ORIGINS,
        description="Origins of the pages that may use it, such as https://example.org; none: no page is asked.",
    )
    expires_at: AwareDatetime | None = Field(None, description="When it ends by itself; null is never.")
    publishable: bool | None = Field(
        None, description="Whether it may stand in a page, where anybody sees it: it draws from one model, and no more."
    )


class KeyOut(BaseModel):
    """A key, without itself."""

    id: str = Field(description="Its id.")
    object: Literal["key"] = Field("key", description="Always key.")
    name: str = Field(description="Whose key it is, or what for.")
    hint: str = Field(description="How the key begins.")
    scopes: list[str] = Field(description="What it opens.")
    publishable: bool = Field(description="Whether it may stand in a page.")
    model: str | None = Field(description="The only model it draws from; null is all.")
    rate: str | None = Field(description="Most requests; null is the studio's own rate.")
    origins: list[str] = Field(description="Origins of the pages that may use it.")
    created_at: datetime = Field(description="When it was made.")
    expires_at: datetime | None = Field(description="When it ends by itself.")
    last_used_at: datetime | None = Field(description="When it was last used, to the minute.")
    revoked_at: datetime | None = Field(description="When it was revoked; null while it is in force.")

    @classmethod
    def of(cls, row: ApiKey) -> Self:
        """A row as it is shown."""
        return cls(**{name: getattr(row, name) for name in cls.model_fields if name != "object"})


class KeyMade(KeyOut):
    """A key that was just made."""

    key: str = Field(description="The key itself. It is shown this once, and kept nowhere.")
