"""Artworks: what was kept, found again, ordered, exported, and shown with its family."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response, StreamingResponse
from sqlalchemy.orm import Session
from starlette.requests import Request

from app.api import conditional, documenting, drawing, exporting, families, given, idempotency, keeping, paging
from app.api.deps import MayGenerate, ServicesDep
from app.api.paging import Paging
from app.api.schemas.artworks import (
    ArtworkChanges,
    ArtworkIn,
    ArtworkOut,
    FamilyOut,
    ListParams,
    SelectionParams,
)
from app.api.schemas.lists import Deleted, Page
from app.core import artworks, audit, blobs
from app.core.records import Artwork
from app.serving.artwork import About
from app.serving.service import FileKind

router = APIRouter(prefix="/v1/artworks", tags=["artworks"], dependencies=[MayGenerate])

FILE_CACHE: Final = "private, max-age=31536000, immutable"  # an artwork's file never changes
EXPORT_HEADERS: Final = {"content-disposition": 'attachment; filename="ganvas-artworks.zip"'}


@router.get("")
def list_(services: ServicesDep, query: ListParams) -> Page[ArtworkOut]:
    """Artworks, all or those that are looked for."""
    with services.db.read() as session:
        page = paging.page_of_rows(
            session,
            Artwork,
            artworks.matching(query.wanted()),
            Paging(query.limit, query.after, query.order),
            key=Artwork.id,
            created_at=Artwork.created_at,
            show=lambda row: ArtworkOut.of(row, []),
        )
        tags = artworks.tags_of(session, [shown.id for shown in page.data])
    for shown in page.data:
        shown.tags = tags[shown.id]
    return page


@router.post("", status_code=201, response_model=ArtworkOut)
async def keep(body: ArtworkIn, request: Request, services: ServicesDep) -> Response:
    """Draw a recipe and keep the picture, or keep the film or sheet of a finished render."""
    about = About(body.title, body.tags, body.starred)
    if body.recipe is None:
        return await asyncio.to_thread(keeping.keep_render, services, str(body.render), _made, about)
    known = await given.known(services, given.recipe_of(body.recipe, "recipe"), "recipe")
    kind = FileKind(body.output_format or "png", body.output_compression, body.metadata or "full")
    files = await drawing.draw(request, services.painter, [known.recipe], kind)
    keep_them = partial(keeping.keep_pictures, services, [known.recipe], files, kind.output_format, _made, about)
    return await asyncio.to_thread(keep_them)


@router.get("/export", response_class=StreamingResponse, responses={200: documenting.files("application/zip")})
async def export(services: ServicesDep, query: SelectionParams) -> StreamingResponse:
    """A zip of artworks, by id or by the filters of the list: their files, and all that is known of them beside."""
    ids = await asyncio.to_thread(exporting.selected, services, query.wanted(query.id))
    return StreamingResponse(exporting.export(services, ids), media_type="application/zip", headers=EXPORT_HEADERS)


@router.get("/{artwork}")
def get(artwork: str, services: ServicesDep) -> ArtworkOut:
    """One artwork."""
    with services.db.read() as session:
        return _show(session, artworks.find(session, artwork))


@router.get(
    "/{artwork}/file", response_class=FileResponse, responses={200: documenting.files(*exporting.SUFFIXES), 304: {}}
)
def file(artwork: str, request: Request, services: ServicesDep) -> Response:
    """The file of an artwork, as it was kept."""
    with services.db.read() as session:
        row = artworks.find(session, artwork)
    headers = {"etag": f'"{row.file_sha256}"', "cache-control": FILE_CACHE}
    if conditional.has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(services.storage.path(row.file_sha256), media_type=row.media_type, headers=headers)


@router.get("/{artwork}/family")
def family(artwork: str, services: ServicesDep) -> FamilyOut:
    """What an artwork was made of, and what was made of it, kept or not."""
    with services.db.read() as session:
        return families.family_of(session, artworks.find(session, artwork))


@router.patch("/{artwork}")
def change(artwork: str, body: ArtworkChanges, services: ServicesDep) -> ArtworkOut:
    """Put a star on an artwork, or give it other tags or another title."""
    with services.db.begin() as session:
        changed = artworks.change(session, artwork, title=body.title, starred=body.starred, tags=body.tags)
        return _show(session, changed)


@router.delete("/{artwork}")
def delete(artwork: str, services: ServicesDep) -> Deleted:
    """Forget an artwork and its file. What was made of it stays, and still knows its recipe."""
    with services.db.begin() as session:
        blobs.delete_unneeded(session, services.storage, artworks.delete(session, artwork))
        audit.note(session, "artwork.deleted", artwork)
    return Deleted(id=artwork, object="artwork")


def _made(session: Session, kept: Sequence[Artwork]) -> Response:
    (row,) = kept
    return idempotency.made(session, _show(session, row), 201, location=f"/v1/artworks/{row.id}")


def _show(session: Session, row: Artwork) -> ArtworkOut:
    return ArtworkOut.of(row, artworks.tags_of(session, [row.id])[row.id])
