"""Hostile and unlucky zips."""

import os
import signal
import stat
import struct
import threading
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.core.errors import InvalidRequest, TooLarge
from worker.dataset import unpacker
from worker.dataset.archive import MIB, Limits, is_of_the_system, open_archive
from worker.dataset.verdicts import Refused, Verdict

LIMITS = Limits()


def outcome(path: Path, limits: Limits = LIMITS) -> list[str]:
    """The content of each file as text, or the verdict on it."""
    results = []
    with open_archive(path, limits) as archive:
        for entry in archive.entries:
            try:
                results.append(archive.read(entry, limits.file_bytes)[:20].decode())
            except Refused as refusal:
                results.append(str(refusal.verdict))
    return results


def entry_named(name: str, *, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../../escape.png",
        "/etc/escape.png",
        "..\\..\\escape.png",
        "C:\\escape.png",
        "a/../../escape.png",
        "CON",
        "\u202egnp",
    ],
)
def test_a_name_is_only_a_name(tmp_path: Path, pack: Callable[..., Path], name: str) -> None:
    upload = pack({name: b"content"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert outcome(upload) == ["content"]
    assert sorted(tmp_path.parent.rglob("*")) == before
    with open_archive(upload, Limits()) as archive:
        assert archive.entries[0].name == name.replace("\\", "/")


def test_folders_are_not_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.mkdir("cats")
        archive.writestr("cats/1.txt", "one")
    assert outcome(tmp_path / "z.zip") == ["one"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFDIR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(entry_named("link.png", mode=kind | 0o777), "/etc/passwd")
        archive.writestr(entry_named("fine"), "fine")
    assert outcome(tmp_path / "z.zip") == ["unsupported", "fine"]


def test_an_encrypted_file_is_refused_and_the_rest_read(tmp_path: Path, pack: Callable[..., Path]) -> None:
    data = bytearray(pack({"secret.png": b"abc", "open.png": b"open"}).read_bytes())
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= 1
    (tmp_path / "z.zip").write_bytes(data)
    assert outcome(tmp_path / "z.zip") == ["unsupported", "open"]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_ordinary_compression_is_unpacked(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", method) as archive:
        archive.writestr("a.png", "a" * 100)
    assert outcome(tmp_path / "z.zip") == ["unsupported"]


def test_a_file_that_unpacks_to_a_thousand_times_itself_is_refused(pack: Callable[..., Path]) -> None:
    assert outcome(pack({"bomb.png": bytes(4 * MIB), "fine.png": b"fine"})) == ["too_large", "fine"]


def test_one_file_over_the_limit_is_refused_alone(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("big", "b" * 101)
        archive.writestr("fits", "f" * 10)
    assert outcome(tmp_path / "z.zip", Limits(file_bytes=100)) == ["too_large", "f" * 10]


def test_a_large_file_that_is_stored_as_it_is_is_read_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("photograph.png", b"x" * (unpacker.DIRECTORY_BYTES + 1))
    with open_archive(tmp_path / "z.zip", LIMITS) as opened:
        assert len(opened.read(opened.entries[0], LIMITS.file_bytes)) == unpacker.DIRECTORY_BYTES + 1


def test_all_files_together_are_counted(pack: Callable[..., Path]) -> None:
    upload = pack({str(index): b"x" * 10 for index in range(5)})
    assert outcome(upload, Limits(total_bytes=30)) == ["x" * 10] * 3 + ["too_large"] * 2


def test_a_size_that_lies_yields_no_more_than_it_claims(tmp_path: Path, pack: Callable[..., Path]) -> None:
    data = bytearray(pack({"liar.png": b"x" * 5_000, "fine": b"fine"}).read_bytes())
    for signature, size_at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + size_at, 50)
    (tmp_path / "z.zip").write_bytes(data)
    assert outcome(tmp_path / "z.zip") == ["corrupt", "fine"]


def test_a_damaged_file_is_refused_and_the_rest_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("hurt", "original")
        archive.writestr("fine", "fine")
    data = (tmp_path / "z.zip").read_bytes().replace(b"original", b"0riginal")
    (tmp_path / "z.zip").write_bytes(data)
    assert outcome(tmp_path / "z.zip") == ["corrupt", "fine"]


def test_the_same_name_twice_is_two_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.png", "first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", "second")
    assert outcome(tmp_path / "z.zip") == ["first", "second"]


def test_too_many_files_are_refused_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for index in range(65_536):
            archive.writestr(zipfile.ZipInfo(str(index)), b"")
    with pytest.raises(TooLarge, match="65,536 files; the limit is 65,535"):
        outcome(tmp_path / "z.zip")


def test_files_that_share_their_bytes_are_refused(tmp_path: Path, pack: Callable[..., Path]) -> None:
    data = bytearray(pack({"a": b"x" * 5_000, "b": b"y" * 5_000}).read_bytes())
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", data, second + 42, 0)  # where the second says it begins: at the first
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(InvalidRequest, match="damaged or a bomb"):
        outcome(tmp_path / "z.zip")


def test_a_list_of_files_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0, 0, 2**31, 0, 0)
    with (tmp_path / "z.zip").open("wb") as file:
        file.truncate(2**31)  # a hole: no disk is used
        file.seek(2**31)
        file.write(end)
    with pytest.raises(TooLarge, match="list of files"):
        outcome(tmp_path / "z.zip")


@pytest.mark.parametrize(
    "data", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100, b"\x89PNG\r\n\x1a\n", b"PK\x05\x06" + b"\xff" * 18]
)
def test_what_is_no_zip_is_refused_in_words(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises((InvalidRequest, TooLarge)) as refused:
        outcome(tmp_path / "z.zip")
    assert refused.value.error_code in ("archive_invalid", "archive_too_many_files")


def test_a_cut_off_zip_is_refused(tmp_path: Path, pack: Callable[..., Path]) -> None:
    data = pack({"a.png": b"x" * 1000}).read_bytes()
    (tmp_path / "z.zip").write_bytes(data[:-30])
    with pytest.raises(InvalidRequest, match="not a zip that can be read"):
        outcome(tmp_path / "z.zip")


def test_damage_anywhere_gives_an_answer_and_nothing_else(tmp_path: Path, pack: Callable[..., Path]) -> None:
    whole = pack({f"päth{index}.png": bytes(range(60)) * 9 for index in range(2)}).read_bytes()
    place = tmp_path / "z.zip"
    told: Counter[str] = Counter()
    for position in range(len(whole)):
        for value in (0x00, 0xFF):
            place.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            with place.open("rb") as file:
                opened = unpacker.Unpacker(file.fileno())
                head, _ = opened.answer({"list": 0}, b"")
                answers = [head, *(opened.answer({"read": index}, b"")[0] for index in range(head.get("files", 0)))]
            told.update(key for answer in answers for key in answer)
    assert told.keys() - {"too_many"} == {"files", "invalid", "damaged"}


def test_damage_here_and_there_gives_a_verdict_or_a_refusal(tmp_path: Path, pack: Callable[..., Path]) -> None:
    whole = pack({f"päth{index}.png": bytes(range(60)) * 9 for index in range(2)}).read_bytes()
    for position in range(0, len(whole), 23):
        (tmp_path / "z.zip").write_bytes(whole[:position] + b"\xff" + whole[position + 1 :])
        with suppress(InvalidRequest, TooLarge):
            outcome(tmp_path / "z.zip")


def test_an_unpacker_that_is_killed_costs_one_file(pack: Callable[..., Path]) -> None:
    with open_archive(pack({"a": b"a", "b": b"b"}), LIMITS) as archive:
        os.kill(archive.pid, signal.SIGSTOP)
        threading.Timer(0.3, os.kill, (archive.pid, signal.SIGKILL)).start()
        with pytest.raises(Refused, match="died of it") as refused:
            archive.read(archive.entries[0], 10)
        assert refused.value.verdict == Verdict.CORRUPT
        assert archive.read(archive.entries[1], 10) == b"b"


def test_what_the_system_leaves_behind_is_known() -> None:
    left = ["__MACOSX/._a.png", "x/.DS_Store", "Thumbs.db", "a/desktop.ini", "._b.png"]
    assert all(map(is_of_the_system, left))
    assert not any(map(is_of_the_system, ["a.png", "MACOSX/a.png", "thumbs.png"]))


def test_reading_a_zip_leaves_neither_a_process_nor_an_open_file(tmp_path: Path, pack: Callable[..., Path]) -> None:
    upload = pack({"a": b"a"})
    before = len(list(Path("/dev/fd").iterdir()))
    with open_archive(upload, Limits()) as archive:
        pid = archive.pid
        assert archive.read(archive.entries[0], 10) == b"a"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(list(Path("/dev/fd").iterdir())) == before
