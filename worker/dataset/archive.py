"""Reads an untrusted zip without believing it: sizes are counted, names are only names, nothing is extracted."""

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import InvalidRequest, TooLarge
from worker.dataset.verdicts import Refused, Verdict

MIB = 1024**2
GIB = 1024**3
DIRECTORY_BYTES = 32 * MIB  # of the list of entries, which zipfile reads whole: 65,535 entries of 400-character names
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


@dataclass(frozen=True)
class Entry:
    """One file of an archive. `name` is what its sender called it, with forward slashes; it is never used as a path."""

    index: int
    name: str
    info: zipfile.ZipInfo


class BoundedFile(io.FileIO):
    """A file that refuses huge reads: zipfile reads the list of entries at once, in a length the archive claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY_BYTES:
            raise TooLarge(
                f"The zip's list of files claims {size:,} bytes; the limit is {DIRECTORY_BYTES:,}. Send it in parts.",
                code="archive_too_many_files",
                param="files",
            )
        return super().read(size)


class Archive:
    """An open zip: its files in order, each read whole into memory, within `limits`."""

    def __init__(self, zip_file: zipfile.ZipFile, limits: Limits) -> None:
        self._zip = zip_file
        self.limits = limits
        self._unpacked = 0
        files = [info for info in zip_file.infolist() if not info.filename.endswith("/")]
        if len(files) > limits.files:
            message = f"The zip holds {len(files):,} files; the limit is {limits.files:,}. Send it in parts."
            raise TooLarge(message, code="archive_too_many_files", param="files")
        refuse_overlap(files)
        self.entries = [Entry(index, info.filename.replace("\\", "/"), info) for index, info in enumerate(files)]

    def read(self, entry: Entry, max_bytes: int) -> bytes:
        """The file's bytes; Refused when it is not a plain file, is damaged, or exceeds a limit."""
        refuse_by_header(entry, self.limits, max_bytes)
        # zipfile stops at the size an entry claims, so the claims are the count
        self._unpacked += entry.info.file_size
        if self._unpacked > self.limits.total_bytes:
            raise Refused(Verdict.TOO_LARGE, f"With it the zip unpacks to over {in_mb(self.limits.total_bytes)}.")
        try:
            with self._zip.open(entry.info) as stream:
                return stream.read()
        except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError, OSError, ValueError) as damage:
            raise Refused(Verdict.CORRUPT, f"Its place in the zip is damaged: {damage}.") from damage


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """The zip at `path`; InvalidRequest when it is not a readable one, TooLarge when it holds too many files."""
    with BoundedFile(path) as file:
        try:
            # zipfile decodes names strictly, hence UnicodeDecodeError, a ValueError; absurd offsets are OSErrors
            zip_file = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as damage:
            message = f"The upload is not a zip that can be read ({damage}). Send a zip, or the files themselves."
            raise InvalidRequest(message, code="archive_invalid", param="files") from damage
        with zip_file:
            yield Archive(zip_file, limits)


def refuse_overlap(files: list[zipfile.ZipInfo]) -> None:
    """Entries that share bytes make a few kilobytes unpack to petabytes (D. Fifield, A better zip bomb, 2019)."""
    end = 0
    for info in sorted(files, key=lambda info: info.header_offset):
        if info.header_offset < end:
            message = f"The zip is damaged or a bomb: {info.filename[:80]!r} begins inside another file."
            raise InvalidRequest(message, code="archive_invalid", param="files")
        end = info.header_offset + LOCAL_HEADER_BYTES + info.compress_size


def refuse_by_header(entry: Entry, limits: Limits, max_bytes: int) -> None:
    """Refused for what the zip itself says of the file, before any of it is read."""
    info = entry.info
    mode = info.external_attr >> 16 if info.create_system == 3 else 0  # 3: made on Unix, so the mode means something
    if is_of_the_system(entry.name):
        raise Refused(Verdict.UNSUPPORTED, "A file the operating system keeps for itself, not artwork.")
    if stat.S_ISLNK(mode):
        raise Refused(Verdict.UNSUPPORTED, "A symbolic link; send the picture itself.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise Refused(Verdict.UNSUPPORTED, "Not a regular file.")
    if info.flag_bits & 0x1:
        raise Refused(Verdict.UNSUPPORTED, "Encrypted; send it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # LZMA's dictionary, allocated as the file says, may be 4 GiB
        raise Refused(Verdict.UNSUPPORTED, "Packed in an unusual way; zip it with ordinary (deflate) compression.")
    if info.file_size > max_bytes:
        raise Refused(Verdict.TOO_LARGE, f"{in_mb(info.file_size)}; the limit for such a file is {in_mb(max_bytes)}.")
    if info.file_size > max(RATIO_FLOOR_BYTES, limits.ratio * info.compress_size):
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
