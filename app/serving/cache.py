"""Files of pictures that were made already: the same URL twice costs no pass."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from app.serving.meters import Meters

LARGEST_SHARE: Final = 8  # a file over an eighth of the memory would drive out too many others
ENTRY_BYTES: Final = 320  # of memory beside the file: its key with the hash of a recipe, and its place


class FileCache:
    """The files asked for last, within a limit of memory. It belongs to one thread, the event loop's; bytes and files
    may be read from any."""

    def __init__(self, max_bytes: int, meters: Meters | None = None) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._files: OrderedDict[Hashable, bytes] = OrderedDict()  # the least recently used first
        self._meters = meters
        if meters is not None:
            meters.watch("ganvas_cache_bytes", "Memory of the files in the cache.", lambda: self.bytes)
            meters.watch("ganvas_cache_files", "Files in the cache.", lambda: len(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def get(self, key: Hashable) -> bytes | None:
        """The file, which becomes the last to leave; None where it is not here."""
        file = self._files.get(key)
        if file is not None:
            self._files.move_to_end(key)
        if self._meters is not None:
            (self._meters.cache_miss if file is None else self._meters.cache_hit)()
        return file

    def put(self, key: Hashable, file: bytes) -> None:
        """Keep a file, and let go of the least recently used for it; one that is too large is not kept."""
        if LARGEST_SHARE * _memory(file) > self.max_bytes:
            return
        self.bytes += _memory(file) - _memory(self._files.pop(key, None))
        self._files[key] = file
        while self.bytes > self.max_bytes:
            self.bytes -= _memory(self._files.popitem(last=False)[1])


def _memory(file: bytes | None) -> int:
    return 0 if file is None else len(file) + ENTRY_BYTES
