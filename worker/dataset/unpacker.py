"""Lists one untrusted zip and unpacks its files, in a process that may be limited, stuck or killed.

A program of its own, as app.serving.limited.program has it; its argument is the descriptor of the zip. It is asked for
its list ({"list": first}: entries from this one on, as many as fit in one answer) or for a file ({"read": index}).
Nothing is written anywhere, and names are only names.
"""

import importlib
import io
import json
import sys
import zipfile
import zlib
from typing import Any, Final

from app.serving.limited.program import Head, serve

MIB: Final = 1024**2
DIRECTORY_BYTES: Final = 32 * MIB  # of the list of entries, which zipfile reads whole: 65,535 of 400-character names
PAGE_BYTES: Final = MIB  # of the list in one answer, and the longest name, six characters each, on top
PAGE_MAX_BYTES: Final = 2 * MIB
NEEDED: Final = ("encodings.cp437", "zlib")  # what is imported when no file can be opened any more
DAMAGE: Final = (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError, ValueError)


class BoundedFile(io.FileIO):
    """A file that refuses huge reads: zipfile reads the list of entries at once, in a length the archive claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise TooManyFiles(f"The zip's list of files claims {size:,} bytes; the limit is {DIRECTORY_BYTES:,}.")
        return super().read(size)


class TooManyFiles(Exception):
    """The list of a zip's files is too long to be read."""


class Unpacker:
    """One zip, opened at the first request, so that what is wrong with it can be answered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._zip: zipfile.ZipFile | None = None
        self._files: list[zipfile.ZipInfo] = []

    def answer(self, request: Head, _body: bytes) -> tuple[Head, bytes]:
        """The answer to one request: {"invalid": why} for a zip that cannot be read, {"too_many": why}, or
        {"damaged": why} for a file in it."""
        try:
            opened = self._opened()
        except (TooManyFiles, MemoryError) as flood:
            return {"too_many": str(flood) or "The zip's list of files does not fit in memory."}, b""
        except DAMAGE as damage:  # names are decoded strictly, hence ValueError; absurd offsets are OSErrors
            return {"invalid": _words(damage)}, b""
        if "list" in request:
            return {"files": len(self._files)}, self._page(request["list"])
        try:
            info = self._files[request["read"]]
            with opened.open(info) as stream:
                data = b"".join(iter(lambda: stream.read(MIB), b""))
            if len(data) < info.file_size:
                raise EOFError(f"{info.file_size:,} bytes are listed, and {len(data):,} are there")
            return {}, data
        except (*DAMAGE, MemoryError) as damage:
            return {"damaged": _words(damage)}, b""

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(BoundedFile(self._descriptor, closefd=False))
            self._files = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        return self._zip

    def _page(self, first: int) -> bytes:
        """Entries from one on, a JSON list."""
        page: list[str] = []
        size = 0
        for info in self._files[first:]:
            page.append(json.dumps(listed(info)))
            size += len(page[-1])
            if size > PAGE_BYTES:
                break
        return f"[{','.join(page)}]".encode()


def listed(info: zipfile.ZipInfo) -> list[Any]:
    """What the zip says of one of its files, in the order of archive.Listed."""
    return [
        info.filename,
        info.header_offset,
        info.compress_size,
        info.file_size,
        info.compress_type,
        info.flag_bits,
        info.create_system,
        info.external_attr,
    ]


def _words(damage: BaseException) -> str:
    return str(damage)[:200] or type(damage).__name__


def main() -> None:
    """Answer until stdin ends."""
    for module in NEEDED:
        importlib.import_module(module)
    serve(Unpacker(int(sys.argv[1])).answer)


if __name__ == "__main__":
    main()
