"""Artworks: what is kept, how the artist orders it, and what came of what."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.api.paging import Order
from app.api.schemas.forms import Moment, Truth
from app.api.schemas.images import QUALITY_MEANING, Quality
from app.core.artworks import MAX_TAGS, TAG_CHARACTERS, TITLE_CHARACTERS, Wanted, folded
from app.core.records import Artwork
from app.serving.lineage import Relation
from app.serving.recipe import MetadataLevel, OutputFormat

Kind = Literal["picture", "sheet", "film"]

MAX_IDS = 200  # in a URL, which holds some kilobytes


def _tag(text: str) -> str:
    tag = folded(text)
    if not 1 <= len(tag) <= TAG_CHARACTERS or not tag.isprintable():
        raise ValueError(f"a tag has 1 to {TAG_CHARACTERS} letters")
    return tag


def _title(text: str) -> str:
    title = text.strip()
    if not title or not title.isprintable():
        raise ValueError("a title is one line of text")
    return title


Tag = Annotated[str, AfterValidator(_tag)]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Title = Annotated[str, Field(max_length=TITLE_CHARACTERS), AfterValidator(_title)]


class ArtworkOut(BaseModel):
    """A kept picture, sheet or film."""

    id: str = Field(description="Its id.")
    object: Literal["artwork"] = Field("artwork", description="Always artwork.")
    kind: Kind = Field(description="What it is.")
    title: str = Field(description="What the artist calls it.")
    starred: bool = Field(description="Whether the artist put a star on it.")
    tags: list[str] = Field(description="Words the artist put on it, in lower case.")
    model: str = Field(description="Name its model had.")
    checkpoint: str = Field(description="sha256 of the weights.")
    recipe: dict[str, Any] = Field(description="All that determines its pixels.")
    recipe_hash: str = Field(description="sha256 of the recipe.")
    relation: Relation | None = Field(description="How it was made of others; null: drawn from a seed.")
    job: str | None = Field(description="The job that drew it, or found where it lies.")
    url: str = Field(description="Path of its file.")
    media_type: str = Field(description="Kind of its file.")
    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    bytes: int = Field(description="Size of its file.")
    created_at: datetime = Field(description="When it was kept.")

    @classmethod
    def of(cls, row: Artwork, tags: list[str]) -> Self:
        """A row as it is shown."""
        told = cls.model_fields.keys() - {"object", "tags", "job", "url"}
        fields = {name: getattr(row, name) for name in told}
        return cls(**fields, tags=tags, job=row.job_id, url=file_path(row.id))


class ArtworkIn(BaseModel):
    """What to keep: a recipe, which is drawn, or a render that is finished."""

    model_config = ConfigDict(extra="forbid")

    recipe: dict[str, Any] | None = Field(None, description="Of a picture to draw and keep.")
    render: str | None = Field(None, max_length=100, description="Id of a job whose film or sheet is kept.")
    output_format: OutputFormat | None = Field(None, description="Kind of file of a recipe; png when absent.")
    output_compression: Quality | None = Field(None, description=QUALITY_MEANING)
    metadata: MetadataLevel | None = Field(None, description="What the file of a recipe tells of its making.")
    title: Title | None = Field(None, description="What to call it; absent: what its recipe says.")
    starred: bool = Field(False, description="Put a star on it.")
    tags: Tags = Field([], description="Words to put on it.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.recipe is None) == (self.render is None):
            raise ValueError("give a recipe to draw and keep, or a render that is finished; one of the two")
        return self


class ArtworkChanges(BaseModel):
    """What the artist changes; null is absent, and leaves what there is."""

    model_config = ConfigDict(extra="forbid")

    title: Title | None = Field(None, description="What to call it.")
    starred: bool | None = Field(None, description="Put a star on it, or take it off.")
    tags: Tags | None = Field(None, description="The words on it, in place of those before.")


class Filters(BaseModel):
    """Which artworks are meant; all filters together."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=300, description="Only of this model, by name or name@checkpoint.")
    tag: list[Tag] = Field([], max_length=MAX_TAGS, description="Only with this tag; several: with each of them.")
    starred: Truth | None = Field(None, description="Only with a star, or only without one.")
    since: Moment | None = Field(None, description="Only kept at this time or later, such as 2026-01-31T00:00Z.")
    until: Moment | None = Field(None, description="Only kept before this time.")
    q: str | None = Field(
        None, max_length=200, description="Only with each of these words in the title, the tags, the prompt or label."
    )

    def wanted(self, ids: list[str] | None = None) -> Wanted:
        """The same for those who ask the database."""
        return Wanted(ids or (), self.model, self.tag, self.starred, self.since, self.until, self.q)


class ListQuery(Filters):
    """The query of the list."""

    limit: int = Field(50, ge=1, le=200, description="Most entries in one answer.")
    after: str | None = Field(None, max_length=200, description="Entries behind the one with this id.")
    order: Order = Field("desc", description="Oldest first (asc) or newest first (desc).")


class Selection(Filters):
    """What is exported: artworks by id, or by the same filters as the list."""

    id: list[str] = Field([], max_length=MAX_IDS, description="Only this artwork; several: these.")


class NodeOut(BaseModel):
    """One picture, sheet or film of a family."""

    recipe_hash: str = Field(description="Names it in this answer.")
    artwork: str | None = Field(description="Id of the artwork; null: it was not kept.")
    title: str = Field(description="What it is called.")
    relation: Relation | None = Field(description="How it was made of its parents; null: drawn from a seed.")
    recipe: dict[str, Any] = Field(description="All that determines its pixels.")
    url: str | None = Field(description="Path of the file, or of the picture as it is drawn; null: its model is gone.")


class EdgeOut(BaseModel):
    """That one was made of another."""

    parent: str = Field(description="recipe_hash of what it was made of.")
    child: str = Field(description="recipe_hash of what was made.")
    relation: Relation = Field(description="How.")


class FamilyOut(BaseModel):
    """What an artwork was made of, and what was made of it."""

    object: Literal["family"] = Field("family", description="Always family.")
    artwork: str = Field(description="Id of the artwork whose family it is.")
    recipe_hash: str = Field(description="Names the artwork among the nodes.")
    nodes: list[NodeOut] = Field(description="The artwork first, then its ancestors from the nearest on.")
    edges: list[EdgeOut] = Field(description="What was made of what.")
    complete: bool = Field(description="False where the family is too large for one answer.")


def file_path(artwork_id: str) -> str:
    """Where the file of an artwork is."""
    return f"/v1/artworks/{artwork_id}/file"


ListParams = Annotated[ListQuery, Query()]
SelectionParams = Annotated[Selection, Query()]
