"""Reads an untrusted zip without believing it: sizes are counted, names are only names, nothing is extracted, and what
unpacks it is a process of its own."""

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.core.errors import InvalidRequest, TooLarge
from app.serving.limited.child import Child, Died
from app.serving.limited.program import Head
from worker.dataset import unpacker
from worker.dataset.verdicts import Refused, Verdict

Checked = TypeVar("Checked")

MIB = 1024**2
GIB = 1024**3
WALL_SECONDS = 60.0  # for the list, or for one file; processor time is limited too, so this catches sleep and swap
CPU_SECONDS = 20  # for the same; the longest list takes 2, and the largest file 1
RATIO_FLOOR_BYTES = MIB  # below this no ratio can hurt
LOCAL_HEADER_BYTES = 30
OF_THE_SYSTEM = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Limits:
    """What one archive may hold; a file over its own limit is refused alone, an archive over `files` as a whole."""

    files: int = 65_535
    file_bytes: int = 128 * MIB  # a 64 megapixel photograph, hardly compressed
    total_bytes: int = 16 * GIB  # unpacked
    ratio: int = 200  # unpacked to packed; pictures are packed already and stay near 1
    caption_bytes: int = 64 * 1024  # of one .txt
    table_bytes: int = 32 * MIB  # of metadata.jsonl, metadata.csv or dataset.json


Bytes = Annotated[int, Field(ge=0)]


class Listed(NamedTuple):
    """What the zip says of one of its files."""

    name: str
    offset: Bytes
    packed: Bytes
    size: Bytes
    method: int
    flags: int
    system: int
    attributes: int


PAGE: Final = TypeAdapter(list[Listed])


class Said(BaseModel):
    """What an unpacker says beside bytes: checked, for its zip may have taken it over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int = Field(0, ge=0)
    invalid: str | None = Field(None, max_length=300)
    too_many: str | None = Field(None, max_length=300)
    damaged: str | None = Field(None, max_length=300)


@dataclass(frozen=True)
class Entry:
    """One file of an archive. `name` is what its sender called it, with forward slashes; it is never used as a path."""

    index: int
    name: str
    listed: Listed


class Archive:
    """An open zip: its files in order, each read whole into memory, within `limits`. For one thread at a time."""

    def __init__(self, child: Child, limits: Limits) -> None:
        self._child = child
        self.limits = limits
        self._unpacked = 0
        files = self._list()
        refuse_overlap(files)
        self.entries = [Entry(index, file.name.replace("\\", "/"), file) for index, file in enumerate(files)]

    @property
    def pid(self) -> int | None:
        """Of the unpacker, while there is one."""
        return self._child.pid

    def read(self, entry: Entry, max_bytes: int) -> bytes:
        """The file's bytes; Refused when it is not a plain file, is damaged, or exceeds a limit."""
        refuse_by_header(entry, self.limits, max_bytes)
        # the unpacker stops at the size an entry claims, so the claims are the count
        self._unpacked += entry.listed.size
        if self._unpacked > self.limits.total_bytes:
            raise Refused(Verdict.TOO_LARGE, f"With it the zip unpacks to over {in_mb(self.limits.total_bytes)}.")
        try:
            said, data = self._ask({"read": entry.index}, entry.listed.size, _file)
        except Died as death:
            raise Refused(Verdict.CORRUPT, str(death)) from death
        if said.damaged is not None:
            raise Refused(Verdict.CORRUPT, f"Its place in the zip is damaged: {said.damaged}")
        return data

    def _list(self) -> list[Listed]:
        files: list[Listed] = []
        while True:
            try:
                said, page = self._ask({"list": len(files)}, unpacker.PAGE_MAX_BYTES, _page)
            except Died as death:
                raise _invalid(str(death)) from death
            if said.invalid is not None:
                raise _invalid(said.invalid)
            if said.too_many is not None:
                raise _too_many(said.too_many)
            if said.files > self.limits.files:
                raise _too_many(f"The zip holds {said.files:,} files; the limit is {self.limits.files:,}.")
            files += page
            if len(files) >= said.files:
                return files
            if not page:
                raise _invalid("its list ends in the middle")

    def _ask(self, request: Head, max_bytes: int, check: Callable[[Head, bytes], Checked]) -> Checked:
        return self._child.ask(request, b"", cpu_seconds=CPU_SECONDS, max_bytes=max_bytes, check=check)


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """The zip at `path`; InvalidRequest when it is not a readable one, TooLarge when it holds too many files."""
    with path.open("rb") as file:
        child = Child(Path(unpacker.__file__), WALL_SECONDS, (file.fileno(),))
        try:
            yield Archive(child, limits)
        finally:
            child.close()


def _page(head: Head, body: bytes) -> tuple[Said, list[Listed]]:
    return Said.model_validate(head), PAGE.validate_json(body or b"[]")


def _file(head: Head, body: bytes) -> tuple[Said, bytes]:
    return Said.model_validate(head), body


def _invalid(reason: str) -> InvalidRequest:
    message = f"The upload is not a zip that can be read ({reason}). Send a zip, or the files themselves."
    return InvalidRequest(message, code="archive_invalid", param="files")


def _too_many(reason: str) -> TooLarge:
    return TooLarge(f"{reason} Send it in parts.", code="archive_too_many_files", param="files")


def refuse_overlap(files: list[Listed]) -> None:
    """Entries that share bytes make a few kilobytes unpack to petabytes (D. Fifield, A better zip bomb, 2019)."""
    end = 0
    for file in sorted(files, key=lambda file: file.offset):
        if file.offset < end:
            message = f"The zip is damaged or a bomb: {file.name[:80]!r} begins inside another file."
            raise InvalidRequest(message, code="archive_invalid", param="files")
        end = file.offset + LOCAL_HEADER_BYTES + file.packed


def refuse_by_header(entry: Entry, limits: Limits, max_bytes: int) -> None:
    """Refused for what the zip itself says of the file, before any of it is read."""
    file = entry.listed
    mode = file.attributes >> 16 if file.system == 3 else 0  # 3: made on Unix, so the mode means something
    if is_of_the_system(entry.name):
        raise Refused(Verdict.UNSUPPORTED, "A file the operating system keeps for itself, not artwork.")
    if stat.S_ISLNK(mode):
        raise Refused(Verdict.UNSUPPORTED, "A symbolic link; send the picture itself.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise Refused(Verdict.UNSUPPORTED, "Not a regular file.")
    if file.flags & 0x1:
        raise Refused(Verdict.UNSUPPORTED, "Encrypted; send it without a password.")
    if file.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # LZMA's dictionary, allocated as the file says, may be 4 GiB
        raise Refused(Verdict.UNSUPPORTED, "Packed in an unusual way; zip it with ordinary (deflate) compression.")
    if file.size > max_bytes:
        raise Refused(Verdict.TOO_LARGE, f"{in_mb(file.size)}; the limit for such a file is {in_mb(max_bytes)}.")
    if file.size > max(RATIO_FLOOR_BYTES, limits.ratio * file.packed):
        raise Refused(
            Verdict.TOO_LARGE,
            f"It unpacks to more than {limits.ratio} times its packed size, as zip bombs do and pictures do not.",
        )


def is_of_the_system(name: str) -> bool:
    """Whether macOS or Windows left the file there."""
    *folders, base = name.split("/")
    return "__MACOSX" in folders or base.startswith("._") or base.lower() in OF_THE_SYSTEM


def in_mb(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
