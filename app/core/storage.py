"""Blobs named by their sha256: written whole or not at all, in a local folder or any object store obstore knows."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import obstore
import structlog
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import ObjectStore, from_url

from app.core.errors import Damaged, NotFound, SettingsInvalid, StorageFull, Unavailable

log = structlog.get_logger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
STALE_SECONDS: Final = 86_400.0  # no upload and no preparation writes to one scratch place for this long
REMEMBERED_FILES: Final = 65_536  # whose content was compared with their name, by this process
NAME: Final = re.compile("[0-9a-f]{64}")
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Written = tuple[int, int, int]  # inode, time of the last change in ns, bytes: as they are until a file is written to


@dataclass(frozen=True)
class Stored:
    """A blob that is kept, as a listing shows it."""

    sha256: str
    bytes: int
    modified: float  # seconds since 1970 by the clock of the store


class Storage:
    """Content-addressed blobs. `root` holds them, or, for a remote store, the cache of what was read from it."""

    def __init__(self, root: Path, url: str | None = None) -> None:
        self.root = root.absolute()
        try:
            self.remote: ObjectStore | None = from_url(url) if url else None
        except (BaseError, ValueError) as error:
            message = f"GANVAS_STORAGE_URL {url!r} cannot be used: {error}. Write it as s3://bucket/prefix."
            raise SettingsInvalid(message, param="GANVAS_STORAGE_URL") from error
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"The storage folder {self.root} cannot be made: {error.strerror}."
            raise SettingsInvalid(f"{reason} Set GANVAS_DATA to one you may write.", param="GANVAS_DATA") from error
        self._compared: dict[str, Written] = {}  # files that held what their names say, and as which they did

    def put(self, data: bytes | Path) -> str:
        """Keep these bytes (or a copy of this file) and return their sha256; durable when it returns."""
        with self.scratch() as place:
            digest = _write(place, [data] if isinstance(data, bytes) else _chunks(data))
            return self._publish(place, digest)

    def adopt(self, file: Path) -> str:
        """Keep a file made in a scratch place, by renaming it: nothing is copied."""
        digest = hashlib.sha256()
        for chunk in _chunks(file):
            digest.update(chunk)
        with _disk():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
            return self._publish(file, digest.hexdigest())

    def get(self, sha256: str) -> bytes:
        """All bytes of a blob, compared with its name; NotFound where it is missing, Damaged where it is another."""
        try:
            data = self._present(sha256).read_bytes()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            self._compared.pop(sha256, None)
            return self.path(sha256).read_bytes()  # Damaged, or fetched again
        except FileNotFoundError as error:  # deleted just now
            raise _missing(sha256) from error

    def path(self, sha256: str) -> Path:
        """A local file with this content, fetched where the store is remote. A file is compared with its name when
        this process meets it, and again when it was written to. NotFound where it is missing, Damaged where it is
        another; of a remote store only the copy here can be, and that is fetched again."""
        local = self._present(sha256)
        if self._is_whole(sha256, local):
            return local
        log.error("blob_damaged", blob=sha256, fetched_again=self.remote is not None)
        if self.remote is None:
            raise Damaged(f"Blob {sha256[:12]} no longer holds what was written. `ganvas doctor` says what names it.")
        local.unlink(missing_ok=True)
        return self._fetch(self.remote, sha256)

    def verify(self, sha256: str) -> None:
        """Read all of a blob where it is kept for good. Raises NotFound and Damaged, and Unavailable where the store
        does not answer."""
        self._compared.pop(sha256, None)
        if self.remote is not None:
            with self.scratch() as place:
                _download(self.remote, sha256, place)
        elif not self._is_whole(sha256, self._present(sha256)):
            raise Damaged(f"Blob {sha256[:12]} no longer holds what was written.")

    def listing(self) -> Iterator[Stored]:
        """Every blob that is kept for good, in no order; Unavailable where the store does not answer."""
        if self.remote is None:
            for file in (self.root / "sha256").glob("??/*"):
                with contextlib.suppress(FileNotFoundError):  # deleted just now
                    found = file.stat()
                    if NAME.fullmatch(file.name):
                        yield Stored(file.name, found.st_size, found.st_mtime)
            return
        try:
            for batch in obstore.list(self.remote, "sha256/"):
                for entry in batch:
                    name = str(entry["path"]).rpartition("/")[2]
                    if NAME.fullmatch(name):  # a store in a folder lists what is half written too
                        yield Stored(name, int(entry["size"]), entry["last_modified"].timestamp())
        except BaseError as error:
            raise _failed("did not answer", error) from error

    def beside(self, name: str) -> Path:
        """A place on this machine for what can be made again, by a name of its own."""
        folder = self.root / "made"
        with _disk():
            folder.mkdir(exist_ok=True)
        return folder / hashlib.sha256(name.encode()).hexdigest()

    def require(self, *names: str) -> None:
        """Unavailable unless all these blobs are here. Asked in the transaction that names them, as deletions are made
        in the transaction that forgets them, so that neither overtakes the other."""
        for sha256 in names:
            try:
                if self.remote is None:
                    self._present(sha256)
                else:  # another host may have deleted it, and our copy tells nothing of that
                    obstore.head(self.remote, _key(sha256))
            except (NotFound, FileNotFoundError) as error:
                message = f"Blob {sha256[:12]} was deleted in the meantime; try again."
                raise Unavailable(message, code="storage_unavailable") from error
            except BaseError as error:
                raise _failed("did not answer", error) from error

    def delete(self, sha256: str) -> None:
        """Forget a blob; one that is not there is already forgotten."""
        self._compared.pop(sha256, None)
        self._local(sha256).unlink(missing_ok=True)
        if self.remote is None:
            return
        try:
            obstore.delete(self.remote, _key(sha256))
        except FileNotFoundError:
            pass
        except BaseError as error:
            raise _failed("did not delete a blob", error) from error

    def clear_scratch(self) -> None:
        """Remove what killed processes left half-made; what is young may still be in the making, by a worker that is
        saving its state after its supervisor was killed."""
        for place in self._stale():
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                _remove(place)

    def stale_scratch(self) -> int:
        """How much of that there is."""
        return sum(1 for _ in self._stale())

    def check(self) -> None:
        """Write and forget a few bytes; OSError or Unavailable where that fails."""
        self.delete(self.put(secrets.token_bytes(16)))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A path on the same file system for a file in the making; whatever is left there is removed. StorageFull where
        the disk is full."""
        place = self.root / "tmp" / secrets.token_hex(12)
        try:
            with _disk():
                place.parent.mkdir(exist_ok=True)
                yield place
        finally:
            _remove(place)

    def _publish(self, file: Path, sha256: str) -> str:
        if self.remote is not None:
            _upload(self.remote, file, sha256)
        local = self._local(sha256)
        _rename(file, local)
        with contextlib.suppress(FileNotFoundError):  # deleted just now
            self._remember(sha256, _written(local))
        return sha256

    def _present(self, sha256: str) -> Path:
        """The local file of a blob, whatever it holds; NotFound where there is none."""
        local = self._local(sha256)
        if local.exists():
            return local
        if self.remote is None:
            raise _missing(sha256)
        return self._fetch(self.remote, sha256)

    def _fetch(self, remote: ObjectStore, sha256: str) -> Path:
        local = self._local(sha256)
        with self.scratch() as place:
            _download(remote, sha256, place)
            _rename(place, local)
        self._remember(sha256, _written(local))
        return local

    def _is_whole(self, sha256: str, local: Path) -> bool:
        """Whether a file holds what its name says. One that was not written to since it did is not read again."""
        try:
            with _disk(), local.open("rb") as file:
                written = _written(local)
                if self._compared.get(sha256) == written:
                    return True
                whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError as error:  # deleted just now
            raise _missing(sha256) from error
        if whole:
            self._remember(sha256, written)
        return whole

    def _remember(self, sha256: str, written: Written) -> None:
        if len(self._compared) >= REMEMBERED_FILES:
            self._compared.clear()
        self._compared[sha256] = written

    def _stale(self) -> Iterator[Path]:
        for place in (self.root / "tmp").glob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was finished, and renamed, just now
                touched = max(each.stat().st_mtime for each in (place, *place.rglob("*")))
                if time.time() - touched > STALE_SECONDS:
                    yield place

    def _local(self, sha256: str) -> Path:
        return self.root / _key(sha256)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """A full disk is StorageFull, a failing one Unavailable: what was being written is gone, what was there before is
    not."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            message = "The disk is full; nothing of this was kept. Make space and try again."
            raise StorageFull(message) from error
        if error.errno == errno.EIO:
            raise Unavailable(f"The disk failed: {error.strerror}.", code="storage_unavailable") from error
        raise


def _upload(remote: ObjectStore, file: Path, sha256: str) -> None:
    """Put a file into a remote store, unless it is there."""
    try:
        try:
            obstore.put(remote, _key(sha256), file, mode="create")
        except NotSupportedError:  # by this store; to write the same content again harms nobody
            obstore.put(remote, _key(sha256), file)
    except AlreadyExistsError:
        pass
    except BaseError as error:
        raise _failed("did not take a blob", error) from error


def _download(remote: ObjectStore, sha256: str, place: Path) -> None:
    """Write what a remote store has to a new file; Damaged where it is another content."""
    try:
        chunks: Iterable[bytes] = (bytes(chunk) for chunk in obstore.get(remote, _key(sha256)).stream())
        found = _write(place, chunks)
    except FileNotFoundError as error:
        raise _missing(sha256) from error
    except BaseError as error:
        raise _failed("did not answer", error) from error
    if found != sha256:
        raise Damaged(f"Blob {sha256[:12]} came back as {found[:12]}: it is damaged.")


def _failed(what: str, error: BaseError) -> Unavailable:
    """The error of a remote store; only the log tells where that store is."""
    log.warning("storage_failed", reason=str(error))
    return Unavailable(f"Storage {what}; the log has why.", code="storage_unavailable")


def _missing(sha256: str) -> NotFound:
    return NotFound(f"Storage holds no blob {sha256[:12]}.", code="blob_not_found")


def _written(file: Path) -> Written:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _key(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as handle:
        while chunk := handle.read(CHUNK_BYTES):
            yield chunk


def _write(place: Path, chunks: Iterable[bytes]) -> str:
    """Write and fsync a new file; returns its sha256."""
    digest = hashlib.sha256()
    with place.open("xb") as handle:
        for chunk in chunks:
            digest.update(chunk)
            handle.write(chunk)
        handle.flush()
        os.fsync(handle.fileno())
    return digest.hexdigest()


def _rename(file: Path, target: Path) -> None:
    """Move into place atomically and make the folder's entry durable; an identical blob is simply replaced."""
    if not target.parent.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        for folder in (target.parent.parent, target.parent.parent.parent):  # what lies in a folder that is lost is lost
            _sync(folder)
    file.replace(target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
