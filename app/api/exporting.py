"""Artworks as one zip, written while it is sent: whatever its size, a megabyte of it is in memory."""

import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Final

from app.api.deps import Services
from app.api.schemas.artworks import ArtworkOut
from app.core import artworks
from app.core.artworks import Wanted
from app.core.errors import Damaged, NotFound, TooLarge
from app.core.records import Artwork

CHUNK_BYTES: Final = 1024 * 1024
MAX_ARTWORKS: Final = 5_000
MAX_BYTES: Final = 16 * 1024**3
READ_TOGETHER: Final = 50  # rows
NAME_CHARACTERS: Final = 60
UNSAFE: Final = re.compile(r"[^\w ,.()'-]")  # in a file's name, on some system or other
RECIPES_NAME: Final = "recipes.json"
SUFFIXES: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "application/zip": "zip",
}


def selected(services: Services, wanted: Wanted) -> list[str]:
    """The ids of the artworks that are meant, the newest first. Raises NotFound for an id that means none, TooLarge
    for more than one zip holds."""
    with services.db.read() as session:
        count, size = artworks.measure(session, wanted)
        if count > MAX_ARTWORKS or size > MAX_BYTES:
            message = (
                f"These are {count:,} artworks of {size:,} bytes; a zip holds {MAX_ARTWORKS:,} and {MAX_BYTES:,}. "
                "Narrow it down, by since and until for instance."
            )
            raise TooLarge(message, code="export_too_large")
        ids = artworks.ids_of(session, wanted)
    for artwork_id in wanted.ids:
        if artwork_id not in ids:
            raise artworks.not_found(artwork_id)
    return ids


def export(services: Services, ids: Sequence[str]) -> Iterator[bytes]:
    """A zip of these artworks' files, and their recipes beside them; what was deleted meanwhile is left out, and what
    is damaged, which the log names."""
    place, written = _Outbox(), 0
    with tempfile.TemporaryFile() as recipes, zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for row, tags in _rows(services, ids):
            try:
                file = services.storage.path(row.file_sha256).open("rb")
            except (NotFound, Damaged, FileNotFoundError):
                continue
            written += 1
            entry = _entry(written, row)
            with file:
                yield from _write(archive, entry, file, place)
            shown = ArtworkOut.of(row, tags).model_dump(mode="json", exclude={"object", "url"})
            line = json.dumps({"file": entry.filename} | shown, ensure_ascii=False)
            recipes.write(("[\n" if written == 1 else ",\n").encode() + line.encode())
        recipes.write(b"\n]\n" if written else b"[]\n")
        recipes.seek(0)
        yield from _write(archive, zipfile.ZipInfo(RECIPES_NAME), recipes, place)
    yield place.take()


class _Outbox(io.RawIOBase):
    """A file to write to alone, which hands on what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        """As files are asked."""
        return True

    def write(self, data: Any) -> int:
        """Hold some bytes."""
        self._held += data
        return len(data)

    def take(self) -> bytes:
        """What came since the last time."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: IO[bytes], place: _Outbox) -> Iterator[bytes]:
    with archive.open(entry, "w", force_zip64=entry.file_size > zipfile.ZIP64_LIMIT) as into:
        while chunk := file.read(CHUNK_BYTES):
            into.write(chunk)
            yield place.take()


def _rows(services: Services, ids: Sequence[str]) -> Iterator[tuple[Artwork, list[str]]]:
    """Artworks and their tags, some at a time: no transaction waits for the client to take a zip."""
    for start in range(0, len(ids), READ_TOGETHER):
        some = ids[start : start + READ_TOGETHER]
        with services.db.read() as session:
            rows = artworks.several(session, some)
            tags = artworks.tags_of(session, some)
        yield from ((row, tags[row.id]) for row in rows)


def _entry(number: int, row: Artwork) -> zipfile.ZipInfo:
    """Where a file is in the zip: under its number, which makes the name its own, and its title."""
    title = UNSAFE.sub("", row.title)[:NAME_CHARACTERS].strip(" .")
    suffix = SUFFIXES.get(row.media_type, "bin")
    entry = zipfile.ZipInfo(f"{number:04d} {title}.{suffix}", row.created_at.timetuple()[:6])
    entry.file_size = row.bytes
    return entry
