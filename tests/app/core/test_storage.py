"""Blobs are named by what they hold, whole or absent, and the same through a remote store."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from app.core.errors import Damaged, NotFound, SettingsInvalid, Unavailable
from app.core.storage import Storage


def test_a_blob_is_named_by_its_sha256_and_reads_back(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = storage.put(b"artwork")
    assert sha256 == hashlib.sha256(b"artwork").hexdigest()
    assert storage.get(sha256) == b"artwork"


def test_a_file_is_copied_by_put_and_moved_by_adopt(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "blobs")
    original = tmp_path / "original"
    original.write_bytes(b"x" * 3_000_000)
    assert storage.get(storage.put(original)) == original.read_bytes()
    with storage.scratch() as place:
        place.write_bytes(b"made here")
        sha256 = storage.adopt(place)
        assert not place.exists()
    assert storage.get(sha256) == b"made here"


def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(IsADirectoryError):
        storage.put(tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_disk_that_fills_up_while_a_file_is_made_is_unavailable(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    with pytest.raises(Unavailable) as caught, storage.scratch() as place:
        place.mkdir()
        (place / "reel").symlink_to("/dev/full")  # every write to it fails with ENOSPC
        (place / "reel").write_bytes(b"0")
    assert caught.value.error_code == "storage_full"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("app.core.storage.os.fsync", full)
    with pytest.raises(Unavailable) as caught:
        storage.put(b"too much")
    assert caught.value.error_code == "storage_full"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_blob_that_was_deleted_in_the_meantime_is_missed_by_who_is_about_to_name_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = storage.put(b"shared")
    storage.require(sha256)
    storage.delete(sha256)
    with pytest.raises(Unavailable, match="deleted in the meantime"):
        storage.require(sha256)


def test_only_what_was_left_long_ago_is_cleared(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    (tmp_path / "tmp").mkdir()
    young, old, folder = (tmp_path / "tmp" / name for name in ("young", "old", "folder"))
    young.write_bytes(b"half a state")
    old.write_bytes(b"half an upload")
    folder.mkdir()
    for place in (old, folder):
        os.utime(place, (0, 0))
    storage.clear_scratch()
    assert (young.exists(), old.exists(), folder.exists()) == (True, False, False)


def test_a_folder_that_is_still_written_to_is_not_cleared(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    folder = tmp_path / "tmp" / "film"
    (folder / "frames").mkdir(parents=True)
    (folder / "frames" / "film.mp4").write_bytes(b"half a film")
    for place in (folder, folder / "frames"):  # their own times change with the names in them alone
        os.utime(place, (0, 0))
    assert storage.stale_scratch() == 0
    storage.clear_scratch()
    assert folder.exists()


def test_a_missing_blob_is_not_found_and_deleting_it_twice_is_no_error(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = storage.put(b"gone soon")
    storage.delete(sha256)
    storage.delete(sha256)
    with pytest.raises(NotFound, match=sha256[:12]):
        storage.get(sha256)


def test_a_remote_store_serves_what_another_host_wrote_through_its_own_cache(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket"
    writer, reader = Storage(tmp_path / "writer", url), Storage(tmp_path / "reader", url)
    sha256 = writer.put(b"shared")
    assert reader.get(sha256) == b"shared"
    assert reader.path(sha256).is_relative_to(tmp_path / "reader")
    with pytest.raises(NotFound):
        reader.get("0" * 64)


def test_a_remote_blob_that_another_host_deleted_is_missed_though_there_is_a_copy_here(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket"
    one, other = Storage(tmp_path / "one", url), Storage(tmp_path / "other", url)
    sha256 = one.put(b"shared")
    one.require(sha256)
    other.delete(sha256)
    with pytest.raises(Unavailable, match="deleted in the meantime"):
        one.require(sha256)


def test_a_damaged_remote_blob_is_refused_and_not_cached(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket"
    sha256 = Storage(tmp_path / "writer", url).put(b"whole")
    next((tmp_path / "bucket").rglob(sha256)).write_bytes(b"torn")
    reader = Storage(tmp_path / "reader", url)
    for _attempt in range(2):
        with pytest.raises(Unavailable, match="damaged"):
            reader.get(sha256)


def flip(file: Path) -> None:
    """Turn one bit, as a disk does that forgets."""
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


def test_a_damaged_blob_is_never_handed_out_also_when_it_was_whole_before(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    sha256 = storage.put(b"weeks of training")
    for _known in range(2):
        assert storage.path(sha256).read_bytes() == b"weeks of training"
    flip(storage.path(sha256))
    for reading in (storage.get, storage.path, storage.verify, Storage(tmp_path).path):
        with pytest.raises(Damaged, match=sha256[:12]):
            reading(sha256)
    assert storage.put(b"weeks of training") == sha256  # whoever has it whole heals it
    assert storage.get(sha256) == b"weeks of training"


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = Storage(tmp_path).put(b"large")
    storage, read = Storage(tmp_path), []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, _name: read.append(1) or hashlib.sha256(file.read()))
    for _again in range(3):
        storage.path(sha256)
    assert len(read) == 1


def test_a_damaged_copy_of_a_remote_blob_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    storage = Storage(tmp_path / "cache", f"file://{tmp_path}/bucket")
    sha256 = storage.put(b"shared")
    for reading in (lambda: storage.get(sha256), lambda: storage.path(sha256).read_bytes()):
        flip(tmp_path / "cache" / "sha256" / sha256[:2] / sha256)
        assert reading() == b"shared"


def test_what_a_remote_store_has_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    url = f"file://{tmp_path}/bucket"
    sha256 = Storage(tmp_path / "one", url).put(b"shared")
    (kept,) = (file for file in (tmp_path / "bucket").rglob("*") if file.is_file())
    before = kept.stat()
    assert Storage(tmp_path / "two", url).put(b"shared") == sha256
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("remote", [False, True])
def test_a_listing_has_every_blob_and_nothing_else(tmp_path: Path, remote: bool) -> None:
    (tmp_path / "bucket").mkdir()
    storage = Storage(tmp_path / "blobs", f"file://{tmp_path}/bucket" if remote else None)
    assert list(storage.listing()) == []
    made = {storage.put(data): len(data) for data in (b"one", b"three")}
    (tmp_path / ("bucket" if remote else "blobs") / "sha256" / "half-written").write_bytes(b"x")
    assert {stored.sha256: stored.bytes for stored in storage.listing()} == made
    assert all(abs(stored.modified - time.time()) < 60 for stored in storage.listing())


def test_a_folder_that_cannot_be_made_is_named_with_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsInvalid, match="GANVAS_DATA"):
        Storage(tmp_path / "file" / "blobs")
