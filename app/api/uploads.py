"""Receives a multipart upload of any size as one zip on disk, holding one chunk at a time in memory."""

import asyncio
import contextlib
import errno
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.core.errors import GanvasError, InvalidRequest, StorageFull, TooLarge, Unavailable

FIELD_MAX_BYTES: Final = 16 * 1024
FIELDS_MAX: Final = 32
FILES_MAX: Final = 65_535  # what preparation takes of one zip
NAME_MAX_CHARACTERS: Final = 400
BATCH_BYTES: Final = 1024 * 1024  # parsed and written at once, in a thread
FILES_FIELD: Final = "files"


@dataclass
class Received:
    """What came: the text fields, and how many files are in the zip at `archive`."""

    archive: Path
    fields: dict[str, str] = field(default_factory=dict)
    files: int = 0


async def receive(content_type: str, chunks: AsyncIterator[bytes], folder: Path, max_bytes: int) -> Received:
    """Stream a multipart body into `folder`. One zip is kept as it came; other files are packed into one, uncompressed.

    Raises InvalidRequest for a body that is not such an upload, TooLarge over `max_bytes` of files.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest(
            "Send the artwork as multipart/form-data: curl -F name=... -F files=@art.zip", code="multipart_expected"
        )
    try:
        upload = _Upload(folder, options[b"boundary"], max_bytes)
    except FormParserError as error:
        raise InvalidRequest(f"The multipart boundary cannot be used: {error}.", code="multipart_invalid") from error
    try:
        batch = bytearray()
        async for chunk in chunks:
            batch += chunk
            if len(batch) >= BATCH_BYTES:
                await asyncio.to_thread(upload.write, bytes(batch))
                batch.clear()
        await asyncio.to_thread(upload.write, bytes(batch))
        return await asyncio.to_thread(upload.finish)
    finally:
        upload.close()


class _Upload:
    """The parser's callbacks and the files they write. The first file stays loose until a second one comes."""

    def __init__(self, folder: Path, boundary: bytes, max_bytes: int) -> None:
        self._first, self._packed = folder / "first", folder / "packed.zip"
        self._max_bytes = max_bytes
        self._bytes = 0
        self._zip: zipfile.ZipFile | None = None
        self._names: Counter[str] = Counter()
        self._sink: IO[bytes] | None = None
        self._text: bytearray | None = None
        self._field = self._first_name = ""
        self._header_name = self._header_value = b""
        self._disposition = b""
        self.received = Received(self._first)
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )
        self._ended = False

    def write(self, data: bytes) -> None:
        """Parse and store a piece of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body is damaged: {error}.", code="multipart_invalid") from error
        except OSError as error:
            raise _storage_error(error) from error

    def finish(self) -> Received:
        """All has come: close the zip, or make one of a loose file that is none."""
        if not self._ended:
            raise InvalidRequest("The multipart body ends in the middle.", code="multipart_invalid")
        if self.received.files == 0:
            raise InvalidRequest("No files came: send a zip, or pictures, as `files`.", code="no_files", param="files")
        try:
            if self._zip is None and not self._is_zip():
                self._begin_zip()
            if self._zip is not None:
                self._zip.close()
                self.received.archive = self._packed
        except OSError as error:
            raise _storage_error(error) from error
        return self.received

    def close(self) -> None:
        """Let go of the files, whatever state they are in; the folder is scratch."""
        for file in (self._sink, self._zip):
            if file is not None:
                with contextlib.suppress(OSError):  # a full disk has been told of already
                    file.close()

    def _is_zip(self) -> bool:
        return self._first_name.lower().endswith(".zip") or zipfile.is_zipfile(self._first)

    def _begin_zip(self) -> None:
        self._zip = zipfile.ZipFile(self._packed, "w", zipfile.ZIP_STORED)
        with self._first.open("rb") as source, self._open_entry(self._first_name) as sink:
            while chunk := source.read(BATCH_BYTES):
                sink.write(chunk)
        self._first.unlink()

    def _open_entry(self, name: str) -> IO[bytes]:
        """An entry under the client's own name for the file: listed, never a path. A second a.png is a (2).png."""
        name = name or "unnamed"
        self._names[name] += 1
        if self._names[name] > 1:
            stem, dot, suffix = name.rpartition(".")
            number = f" ({self._names[name]})"
            name = f"{stem}{number}{dot}{suffix}" if dot else f"{name}{number}"
        assert self._zip is not None  # noqa: S101 - _begin_zip came before
        return self._zip.open(zipfile.ZipInfo(name), "w", force_zip64=True)

    def _on_part_begin(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" not in options:
            if len(self.received.fields) >= FIELDS_MAX:
                raise InvalidRequest(f"More than {FIELDS_MAX} fields came.", code="multipart_invalid")
            self._text = bytearray()
            return
        if self._field != FILES_FIELD:
            message = f"A file came as {self._field!r}; send files as {FILES_FIELD!r}."
            raise InvalidRequest(message, code="unknown_field", param=self._field)
        self._begin_file(options[b"filename"].decode("utf-8", "replace")[:NAME_MAX_CHARACTERS])

    def _begin_file(self, name: str) -> None:
        self.received.files += 1
        if self.received.files > FILES_MAX:
            message = f"More than {FILES_MAX:,} files came; send them in several datasets."
            raise TooLarge(message, code="too_many_files", param="files")
        if self.received.files == 1:
            self._first_name = name
            self._sink = self._first.open("wb")
            return
        if self._zip is None:
            self._begin_zip()
        self._sink = self._open_entry(name)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            if len(self._text) + end - start > FIELD_MAX_BYTES:
                raise TooLarge(f"Field {self._field!r} exceeds {FIELD_MAX_BYTES:,} bytes.", param=self._field)
            self._text += data[start:end]
        elif self._sink is not None:
            self._bytes += end - start
            if self._bytes > self._max_bytes:
                message = f"The files exceed {self._max_bytes:,} bytes, the most one upload may have."
                raise TooLarge(f"{message} Send them in several datasets, or raise GANVAS_MAX_UPLOAD_MIB.")
            self._sink.write(data[start:end])

    def _on_part_end(self) -> None:
        if self._text is not None:
            self.received.fields[self._field] = self._text.decode("utf-8", "replace")
            self._text = None
        elif self._sink is not None:
            self._sink.close()
            self._sink = None

    def _on_end(self) -> None:
        self._ended = True


def _storage_error(error: OSError) -> GanvasError:
    if error.errno == errno.ENOSPC:
        return StorageFull("The disk is full; nothing of this upload was kept.")
    return Unavailable(f"The upload could not be stored: {error.strerror}.", code="storage_unavailable")
