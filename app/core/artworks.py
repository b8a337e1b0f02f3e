"""Artworks: pictures, sheets and films that are kept with their recipes; found, changed, and related by them."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, func, or_, select
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.records import Artwork, ArtworkParent, ArtworkTag, Job
from app.core.storage import Storage

TITLE_CHARACTERS: Final = 200
TAG_CHARACTERS: Final = 60
MAX_TAGS: Final = 32  # of one artwork
FOUND_BY: Final = frozenset({"prompt", "label"})  # what of a recipe is words


@dataclass(frozen=True)
class Wanted:
    """Which artworks are meant; None and nothing are all."""

    ids: Sequence[str] = ()
    model: str | None = None  # name, or name@ and the first digits of a checkpoint
    tags: Sequence[str] = ()  # each of them
    starred: bool | None = None
    since: datetime | None = None
    until: datetime | None = None  # not included
    text: str | None = None  # words, each of which is somewhere in title, tags, prompt or label


def keep(
    session: Session, storage: Storage, artwork: Artwork, made_of: Iterable[str], tags: Iterable[str] = ()
) -> Artwork:
    """Add an artwork whose file is in storage. made_of: the points it descends from, by hash, the nearest first."""
    storage.require(artwork.file_sha256)
    session.add(artwork)
    session.flush()
    for position, point_hash in enumerate(made_of):
        session.add(ArtworkParent(artwork_id=artwork.id, position=position, point_hash=point_hash))
    _tag(session, artwork, tags)
    return artwork


def find(session: Session, artwork_id: str, *, lock: bool = False) -> Artwork:
    """The artwork, or NotFound; `lock` keeps other writers off the row until the transaction ends."""
    artwork = session.get(Artwork, artwork_id, with_for_update=lock or None)
    if artwork is None:
        raise not_found(artwork_id)
    return artwork


def not_found(artwork_id: str) -> NotFound:
    """The error for an id that is no artwork's."""
    message = f"There is no artwork {artwork_id[:80]!r}. GET /v1/artworks lists them."
    return NotFound(message, code="artwork_not_found", param="artwork")


def change(
    session: Session,
    artwork_id: str,
    *,
    title: str | None = None,
    starred: bool | None = None,
    tags: Iterable[str] | None = None,
) -> Artwork:
    """Give an artwork another title, a star, or other tags in place of those it has; None leaves what there is."""
    artwork = find(session, artwork_id, lock=True)
    if title is not None:
        artwork.title = title
    if starred is not None:
        artwork.starred = starred
    if tags is None:
        _write_text(artwork, tags_of(session, [artwork_id])[artwork_id])
    else:
        session.execute(delete_from(ArtworkTag).where(ArtworkTag.artwork_id == artwork_id))
        _tag(session, artwork, tags)
    return artwork


def delete(session: Session, artwork_id: str) -> list[str]:
    """Remove an artwork and return the blobs that nothing else names; its relatives remember what it was."""
    artwork = find(session, artwork_id, lock=True)
    blob = artwork.file_sha256
    session.delete(artwork)
    session.flush()
    drawn = select(Job.id).where(or_(Job.preview_sha256 == blob, Job.result["file"].as_string() == blob)).limit(1)
    return [] if is_kept(session, blob) or session.scalar(drawn) is not None else [blob]


def is_kept(session: Session, sha256: str) -> bool:
    """Whether a blob is the file of an artwork."""
    return session.scalar(select(Artwork.id).where(Artwork.file_sha256 == sha256).limit(1)) is not None


def tags_of(session: Session, ids: Sequence[str]) -> dict[str, list[str]]:
    """The tags of each artwork, in the order of the alphabet."""
    tags: dict[str, list[str]] = {artwork_id: [] for artwork_id in ids}
    query = select(ArtworkTag).where(ArtworkTag.artwork_id.in_(ids)).order_by(ArtworkTag.tag)
    for row in session.scalars(query):
        tags[row.artwork_id].append(row.tag)
    return tags


def matching(wanted: Wanted) -> Select[Artwork]:
    """The query for artworks."""
    query = select(Artwork)
    if wanted.ids:
        query = query.where(Artwork.id.in_(wanted.ids))
    if wanted.model is not None:
        name, _, checkpoint = wanted.model.partition("@")
        query = query.where(Artwork.model == name, Artwork.checkpoint.startswith(checkpoint, autoescape=True))
    for tag in wanted.tags:
        query = query.where(Artwork.id.in_(select(ArtworkTag.artwork_id).where(ArtworkTag.tag == folded(tag))))
    if wanted.starred is not None:
        query = query.where(Artwork.starred == wanted.starred)
    if wanted.since is not None:
        query = query.where(Artwork.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Artwork.created_at < wanted.until)
    for word in folded(wanted.text or "").split():
        query = query.where(Artwork.text.contains(word, autoescape=True))
    return query


def several(session: Session, ids: Sequence[str]) -> list[Artwork]:
    """Artworks by their ids, in that order, without those that are gone."""
    rows = {row.id: row for row in session.scalars(select(Artwork).where(Artwork.id.in_(ids)))}
    return [rows[artwork_id] for artwork_id in ids if artwork_id in rows]


def ids_of(session: Session, wanted: Wanted) -> list[str]:
    """The ids of the artworks that are meant, the newest first."""
    newest_first = (Artwork.created_at.desc(), Artwork.id.desc())
    return list(session.scalars(matching(wanted).with_only_columns(Artwork.id).order_by(*newest_first)))


def measure(session: Session, wanted: Wanted) -> tuple[int, int]:
    """How many artworks are meant, and the bytes of their files."""
    meant = matching(wanted).subquery()
    count, total = session.execute(select(func.count(), func.sum(meant.c.bytes))).one()
    return count, int(total or 0)


def descending(session: Session, point_hash: str, limit: int) -> list[Artwork]:
    """Artworks that were made of a point, directly or not, the oldest first."""
    made = select(ArtworkParent.artwork_id).where(ArtworkParent.point_hash == point_hash)
    query = select(Artwork).where(Artwork.id.in_(made)).order_by(Artwork.created_at, Artwork.id)
    return list(session.scalars(query.limit(limit)))


def showing(session: Session, point_hashes: Sequence[str]) -> dict[str, Artwork]:
    """The artwork of each point that was kept first, by the point's hash."""
    query = select(Artwork).where(Artwork.point_hash.in_(point_hashes))
    newest_first = session.scalars(query.order_by(Artwork.created_at.desc(), Artwork.id.desc()))
    return {artwork.point_hash: artwork for artwork in newest_first if artwork.point_hash is not None}


def folded(text: str) -> str:
    """A text as it is compared: in lower case, accents in one form, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).lower().replace("\0", " ").split())


def _tag(session: Session, artwork: Artwork, tags: Iterable[str]) -> None:
    """Give tags to an artwork that has none."""
    different = sorted({folded(tag) for tag in tags})
    session.add_all(ArtworkTag(artwork_id=artwork.id, tag=tag) for tag in different)
    _write_text(artwork, different)
    session.flush()


def _write_text(artwork: Artwork, tags: Iterable[str]) -> None:
    words = dict.fromkeys(map(folded, (artwork.title, *tags, *_words(artwork.recipe))))
    artwork.text = "\n".join(words)


def _words(recipe: Any) -> Iterator[str]:
    """Every prompt and label in a recipe, those of its points too."""
    if isinstance(recipe, list):
        for each in recipe:
            yield from _words(each)
    elif isinstance(recipe, dict):
        for name, value in recipe.items():
            if name in FOUND_BY and isinstance(value, str):
                yield value
            else:
                yield from _words(value)
