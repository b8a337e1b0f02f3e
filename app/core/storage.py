"""Blobs named by their sha256: written whole or not at all, in a local folder or any object store obstore knows."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from app.core.errors import Damaged, NotFound, SettingsInvalid, StorageFull, Unavailable

CHUNK_BYTES = 1024 * 1024
STALE_SECONDS = 86_400.0  # no upload and no preparation writes to one scratch place for this long


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
        """All bytes of a blob; NotFound where it is missing."""
        return self.path(sha256).read_bytes()

    def path(self, sha256: str) -> Path:
        """A local file with this content, fetched once where the store is remote; NotFound where it is missing."""
        local = self._local(sha256)
        if local.exists():
            return local
        if self.remote is None:
            raise NotFound(f"Storage holds no blob {sha256[:12]}.", code="blob_not_found")
        with self.scratch() as place:
            try:
                chunks: Iterable[bytes] = (bytes(chunk) for chunk in obstore.get(self.remote, _key(sha256)).stream())
                found = _write(place, chunks)
            except FileNotFoundError as error:
                raise NotFound(f"Storage holds no blob {sha256[:12]}.", code="blob_not_found") from error
            except BaseError as error:
                raise Unavailable(f"Storage did not answer: {error}.", code="storage_unavailable") from error
            if found != sha256:
                raise Damaged(f"Blob {sha256[:12]} came back as {found[:12]}: it is damaged.")
            _rename(place, local)
        return local

    def beside(self, name: str) -> Path:
        """A place on this machine for what can be made again, by a name of its own."""
        folder = self.root / "made"
        folder.mkdir(exist_ok=True)
        return folder / hashlib.sha256(name.encode()).hexdigest()

    def require(self, *names: str) -> None:
        """Unavailable unless all these blobs are here. Asked in the transaction that names them, as deletions are made
        in the transaction that forgets them, so that neither overtakes the other."""
        for sha256 in names:
            try:
                self.path(sha256)
            except NotFound as error:
                message = f"Blob {sha256[:12]} was deleted in the meantime; try again."
                raise Unavailable(message, code="storage_unavailable") from error

    def delete(self, sha256: str) -> None:
        """Forget a blob; one that is not there is already forgotten."""
        self._local(sha256).unlink(missing_ok=True)
        if self.remote is None:
            return
        try:
            obstore.delete(self.remote, _key(sha256))
        except FileNotFoundError:
            pass
        except BaseError as error:
            raise Unavailable(f"Storage did not delete a blob: {error}.", code="storage_unavailable") from error

    def clear_scratch(self) -> None:
        """Remove what killed processes left half-made; what is young may still be in the making, by a worker that is
        saving its state after its supervisor was killed."""
        for place in (self.root / "tmp").glob("*"):
            with contextlib.suppress(FileNotFoundError):  # it was finished, and renamed, just now
                if time.time() - place.stat().st_mtime > STALE_SECONDS:
                    _remove(place)

    def check(self) -> None:
        """Write and forget a few bytes; OSError or Unavailable where that fails."""
        self.delete(self.put(secrets.token_bytes(16)))

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A path on the same file system for a file in the making; whatever is left there is removed. Unavailable where
        the disk is full."""
        place = self.root / "tmp" / secrets.token_hex(12)
        place.parent.mkdir(exist_ok=True)
        try:
            with _disk():
                yield place
        finally:
            _remove(place)

    def _publish(self, file: Path, sha256: str) -> str:
        if self.remote is not None:
            try:
                obstore.put(self.remote, _key(sha256), file)
            except BaseError as error:
                raise Unavailable(f"Storage did not take a blob: {error}.", code="storage_unavailable") from error
        _rename(file, self._local(sha256))
        return sha256

    def _local(self, sha256: str) -> Path:
        return self.root / _key(sha256)


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """A full or failing disk is Unavailable: what was being written is gone, what was there before is not."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            message = "The disk is full; nothing of this was kept. Make space and try again."
            raise StorageFull(message) from error
        if error.errno == errno.EIO:
            raise Unavailable(f"The disk failed: {error.strerror}.", code="storage_unavailable") from error
        raise


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
    target.parent.mkdir(parents=True, exist_ok=True)
    file.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
