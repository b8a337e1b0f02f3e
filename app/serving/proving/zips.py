"""Anyone's zip, read no further than ours go: files that are stored as they are, beside each other, in one list.

APPNOTE.TXT 6.3.10, 4.3.7, 4.3.12 and 4.3.16. Nothing is unpacked, and nothing is read twice.
"""

import struct
from mmap import mmap
from typing import Final

from app.core.errors import InvalidRequest

MAX_ENTRIES: Final = 20_000
END: Final = struct.Struct("<4s4H2LH")  # of the list: how many, its bytes, where it starts; a comment follows
END_SIGNATURE: Final = b"PK\5\6"
LONGEST_COMMENT: Final = 65_535
LISTED: Final = struct.Struct("<4s6H3L5H2L")
LISTED_SIGNATURE: Final = b"PK\1\2"
LOCAL: Final = struct.Struct("<4s5H3L2H")
LOCAL_SIGNATURE: Final = b"PK\3\4"
STORED: Final = 0  # a method


class Zip:
    """The files of a zip, by name, in its order."""

    def __init__(self, data: mmap | bytes) -> None:
        """Raises InvalidRequest for what is no zip of ours."""
        self._data = data
        try:
            self.comment, self._places, self.repeated = _places(data)
        except (struct.error, UnicodeDecodeError) as error:
            raise unreadable("it is damaged") from error

    @property
    def names(self) -> list[str]:
        """Of all files."""
        return list(self._places)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        start, end = self._places[name]
        return end - start

    def read(self, name: str) -> bytes:
        """A file."""
        start, end = self._places[name]
        return self._data[start:end]


def unreadable(reason: str) -> InvalidRequest:
    """The error for a zip that is none of ours."""
    message = f"The zip cannot be read: {reason}. Send it as Ganvas made it."
    return InvalidRequest(message, code="film_invalid", param="file")


def _places(data: mmap | bytes) -> tuple[bytes, dict[str, tuple[int, int]], list[str]]:
    """The comment, where each file starts and ends, and names that stand there more than once."""
    end = data.rfind(END_SIGNATURE, max(0, len(data) - END.size - LONGEST_COMMENT))
    if end < 0:
        raise unreadable("it has no list of its files")
    _, _, _, _, count, _, start, comment = END.unpack_from(data, end)
    if count > MAX_ENTRIES:
        message = f"The zip holds more than {MAX_ENTRIES:,} files, the most that are read to prove one."
        raise InvalidRequest(message, code="film_too_long", param="file")
    places: dict[str, tuple[int, int]] = {}
    repeated, total = [], 0
    for _ in range(count):
        signature, _, _, flags, method, _, _, _, packed, size, name, extra, note, *_, local = LISTED.unpack_from(
            data, start
        )
        if signature != LISTED_SIGNATURE:
            raise unreadable("it is damaged")
        if method != STORED or packed != size:
            raise unreadable("its files are packed, and those of ours are stored as they are")
        words = data[start + LISTED.size : start + LISTED.size + name].decode("utf-8" if flags & 0x800 else "cp437")
        place = _place(data, local, size)
        total += size
        if total > len(data):
            raise unreadable("its files lie in one another")
        if words in places:
            repeated.append(words)
        places[words] = place
        start += LISTED.size + name + extra + note
    return bytes(data[end + END.size :][:comment]), places, repeated


def _place(data: mmap | bytes, local: int, size: int) -> tuple[int, int]:
    signature, *_, name, extra = LOCAL.unpack_from(data, local)
    start = local + LOCAL.size + name + extra
    if signature != LOCAL_SIGNATURE or start + size > len(data):
        raise unreadable("it is damaged")
    return start, start + size
