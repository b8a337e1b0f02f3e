"""Receives a multipart upload of any size as one zip on disk, holding one chunk at a time in memory."""

import contextlib
import zipfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from app.api.multipart import BATCH_BYTES, Form
from app.core.errors import InvalidRequest, TooLarge

FILES_MAX: Final = 65_535  # what preparation takes of one zip


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
    upload = _Upload(content_type, folder, max_bytes)
    await upload.receive(chunks)
    return Received(upload.archive, upload.fields, upload.files)


class _Upload(Form):
    """The first file stays loose until a second one comes."""

    expected = "Send the artwork as multipart/form-data: curl -F name=... -F files=@art.zip"
    too_large = "Send them in several datasets, or raise GANVAS_MAX_UPLOAD_MIB."

    def __init__(self, content_type: str, folder: Path, max_bytes: int) -> None:
        super().__init__(content_type, max_bytes)
        self.archive = self._first = folder / "first"
        self.files = 0
        self._packed = folder / "packed.zip"
        self._zip: zipfile.ZipFile | None = None
        self._names: Counter[str] = Counter()
        self._first_name = ""

    def open_file(self, name: str) -> IO[bytes]:
        """The loose place of the first, or an entry of the zip."""
        self.files += 1
        if self.files > FILES_MAX:
            message = f"More than {FILES_MAX:,} files came; send them in several datasets."
            raise TooLarge(message, code="too_many_files", param="files")
        if self.files == 1:
            self._first_name = name
            return self._first.open("wb")
        if self._zip is None:
            self._begin_zip()
        return self._open_entry(name)

    def finish(self) -> None:
        """Close the zip, or make one of a loose file that is none."""
        if self.files == 0:
            raise InvalidRequest("No files came: send a zip, or pictures, as `files`.", code="no_files", param="files")
        if self._zip is None and not self._is_zip():
            self._begin_zip()
        if self._zip is not None:
            self._zip.close()
            self.archive = self._packed

    def close(self) -> None:
        """Let go of the files, whatever state they are in; the folder is scratch."""
        super().close()
        if self._zip is not None:
            with contextlib.suppress(OSError):
                self._zip.close()

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
