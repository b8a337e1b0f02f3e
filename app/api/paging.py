"""Cursor paging: over rows by the time they were made, and over plain sequences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel
from sqlalchemy import Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.api.schemas.lists import Page
from app.core.errors import InvalidRequest

Order = Literal["asc", "desc"]
Row = TypeVar("Row")
Entry = TypeVar("Entry", bound=BaseModel)


@dataclass(frozen=True)
class Paging:
    """Which part of a list is asked for."""

    limit: int
    after: str | None
    order: Order


def page_of_rows(
    session: Session,
    record: type[Row],
    query: Select[Row],
    paging: Paging,
    *,
    key: InstrumentedAttribute[str],
    created_at: InstrumentedAttribute[Any],
    show: Callable[[Row], Entry],
) -> Page[Entry]:
    """A page of rows in the order they were made; `key` is their id and breaks ties."""
    descending = paging.order == "desc"
    if paging.after is not None:
        cursor = session.get(record, paging.after)
        if cursor is None:
            raise unknown_cursor(paging.after)
        moment = getattr(cursor, created_at.key)
        later = created_at < moment if descending else created_at > moment
        tied = key < paging.after if descending else key > paging.after
        query = query.where(or_(later, and_(created_at == moment, tied)))
    ordering = (created_at.desc(), key.desc()) if descending else (created_at.asc(), key.asc())
    rows = list(session.scalars(query.order_by(*ordering).limit(paging.limit + 1)))
    ids = [str(getattr(row, key.key)) for row in rows]
    return page([show(row) for row in rows[: paging.limit]], ids[: paging.limit], has_more=len(rows) > paging.limit)


def page(entries: Sequence[Entry], ids: Sequence[str], *, has_more: bool) -> Page[Entry]:
    """A page of ready entries and their ids."""
    return Page(
        data=list(entries),
        has_more=has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


def unknown_cursor(after: str) -> InvalidRequest:
    """The error for an `after` that is not in the list."""
    return InvalidRequest(
        f"Nothing here has the id {after!r}; use a page's last_id.", code="cursor_invalid", param="after"
    )
