"""Multipart bodies of any size, written where they are to go while they come: one chunk at a time in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import IO, Final

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.core.errors import GanvasError, InvalidRequest, StorageFull, TooLarge, Unavailable
from app.core.storage import FULL

FIELD_MAX_BYTES: Final = 16 * 1024
FIELDS_MAX: Final = 32
NAME_MAX_CHARACTERS: Final = 400
BATCH_BYTES: Final = 1024 * 1024  # parsed and written at once, in a thread


class Form:
    """A body in the making: its text fields, and files in whatever places `open_file` gives them."""

    files_field = "files"  # the one field that takes files
    expected = "Send multipart/form-data."  # advice for what is none
    too_large = "Send less."  # advice for too many bytes

    def __init__(self, content_type: str, max_bytes: int) -> None:
        """Raises InvalidRequest for a content type that says no such body."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise InvalidRequest(self.expected, code="multipart_expected")
        self.fields: dict[str, str] = {}
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sink: IO[bytes] | None = None
        self._text: bytearray | None = None
        self._field = ""
        self._header_name = self._header_value = b""
        self._disposition = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                options[b"boundary"],
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
        except FormParserError as error:
            message = f"The multipart boundary cannot be used: {error}."
            raise InvalidRequest(message, code="multipart_invalid") from error

    def open_file(self, name: str) -> IO[bytes]:
        """Where the next file goes, which its sender calls `name`; it is closed when all of it has come."""
        raise NotImplementedError

    def finish(self) -> None:
        """All has come: complete the files."""

    def close(self) -> None:
        """Let go of what is open, whatever state it is in."""
        if self._sink is not None:
            with suppress(OSError):  # a full disk has been told of already
                self._sink.close()

    async def receive(self, chunks: AsyncIterator[bytes]) -> None:
        """Take the whole body. Raises InvalidRequest for one that is damaged or has what is not wanted, TooLarge over
        `max_bytes` of files, Unavailable where the disk fails."""
        try:
            batch = bytearray()
            async for chunk in chunks:
                batch += chunk
                if len(batch) >= BATCH_BYTES:
                    await asyncio.to_thread(self._write, bytes(batch))
                    batch.clear()
            await asyncio.to_thread(self._write, bytes(batch))
            await asyncio.to_thread(_on_disk, self._finish)
        finally:
            self.close()

    def _write(self, data: bytes) -> None:
        try:
            _on_disk(self._parser.write, data)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body is damaged: {error}.", code="multipart_invalid") from error

    def _finish(self) -> None:
        if not self._ended:
            raise InvalidRequest("The multipart body ends in the middle.", code="multipart_invalid")
        self.finish()

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
            if len(self.fields) >= FIELDS_MAX:
                raise InvalidRequest(f"More than {FIELDS_MAX} fields came.", code="multipart_invalid")
            self._text = bytearray()
            return
        if self._field != self.files_field:
            field = self._field[:40]
            message = f"A file came as {field!r}; send it as {self.files_field!r}."
            raise InvalidRequest(message, code="unknown_field", param=field)
        self._sink = self.open_file(options[b"filename"].decode("utf-8", "replace")[:NAME_MAX_CHARACTERS])

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._text is not None:
            if len(self._text) + end - start > FIELD_MAX_BYTES:
                field = self._field[:40]
                raise TooLarge(f"Field {field!r} exceeds {FIELD_MAX_BYTES:,} bytes.", param=field)
            self._text += data[start:end]
        elif self._sink is not None:
            self._bytes += end - start
            if self._bytes > self._max_bytes:
                message = f"The files exceed {self._max_bytes:,} bytes, the most one upload may have."
                raise TooLarge(f"{message} {self.too_large}")
            self._sink.write(data[start:end])

    def _on_part_end(self) -> None:
        if self._text is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")
            self._text = None
        elif self._sink is not None:
            self._sink.close()
            self._sink = None

    def _on_end(self) -> None:
        self._ended = True


def _on_disk(write: Callable[..., object], *arguments: object) -> None:
    try:
        write(*arguments)
    except OSError as error:
        raise _storage_error(error) from error


def _storage_error(error: OSError) -> GanvasError:
    if error.errno in FULL:
        return StorageFull("The disk is full; nothing of this upload was kept.")
    return Unavailable(f"The upload could not be stored: {error.strerror}.", code="storage_unavailable")
