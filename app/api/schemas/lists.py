"""The one shape of a list, and of a deletion."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, Field

Entry = TypeVar("Entry", bound=BaseModel)


class Page(BaseModel, Generic[Entry]):
    """Part of a list; ask again with after=last_id while has_more."""

    object: Literal["list"] = Field("list", description="Always list.")
    data: list[Entry] = Field(description="The entries, in order.")
    has_more: bool = Field(description="Whether there are entries behind these.")
    first_id: str | None = Field(None, description="Id of the first entry here.")
    last_id: str | None = Field(None, description="Id of the last entry here; the next page's `after`.")


class Deleted(BaseModel):
    """What is gone."""

    id: str = Field(description="Its id.")
    object: str = Field(description="What it was.")
    deleted: Literal[True] = Field(True, description="Always true.")
