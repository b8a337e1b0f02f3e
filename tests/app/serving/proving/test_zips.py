"""A zip is read as Python's own reader reads it, and no other than one of ours is read."""

import io
import random
import struct
import zipfile

import pytest

from app.core.errors import InvalidRequest
from app.serving.proving.zips import Zip

FILES = {"recipe.json": b"{}", "000000.png": b"abc" * 50, "caf\u00e9 \u732b.txt": b"", "a/b.png": bytes(1000)}


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", method) as archive:
        archive.comment = comment
        for name, data in files.items():
            archive.writestr(name, data)
    return place.getvalue()


class Stream(io.RawIOBase):
    """A place that cannot be sought in, so that sizes follow the files."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def refused(data: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        Zip(data)
    assert (caught.value.error_code, caught.value.param) == ("film_invalid", "file")
    return caught.value.message


def test_names_contents_and_the_comment_are_those_of_zipfile() -> None:
    archive = Zip(zipped(FILES, comment=b"a comment"))
    assert archive.names == list(FILES)
    assert {name: archive.read(name) for name in archive.names} == FILES
    assert {name: archive.size(name) for name in archive.names} == {name: len(data) for name, data in FILES.items()}
    assert (archive.comment, archive.repeated) == (b"a comment", [])


def test_a_zip_that_was_written_while_it_was_sent_is_read_too() -> None:
    place = Stream()
    with zipfile.ZipFile(place, "w") as archive:  # type: ignore[call-overload]
        for name, data in FILES.items():
            with archive.open(name, "w") as file:
                file.write(data)
    found = Zip(bytes(place.data))
    assert {name: found.read(name) for name in found.names} == FILES


def test_a_name_that_stands_there_twice_is_told() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        place = io.BytesIO()
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("a.png", b"1")
            archive.writestr("a.png", b"2")
    assert Zip(place.getvalue()).repeated == ["a.png"]


def test_what_is_packed_cut_off_or_no_zip_is_refused() -> None:
    whole = zipped(FILES)
    assert "packed" in refused(zipped(FILES, zipfile.ZIP_DEFLATED))
    assert "no list" in refused(b"")
    assert "no list" in refused(whole[:-30])
    assert "damaged" in refused(whole[30:])
    assert "damaged" in refused(whole.replace(b"PK\3\4", b"PK\3\5"))
    end = whole.rindex(b"PK\5\6")
    for count, start in ((9, None), (4, 2**32 - 1), (4, 3)):
        changed = bytearray(whole)
        struct.pack_into("<H", changed, end + 10, count)
        if start is not None:
            struct.pack_into("<L", changed, end + 16, start)
        refused(bytes(changed))


def test_files_that_lie_in_one_another_or_are_too_many_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="20,000") as caught:
        Zip(zipped({f"{number}": b"" for number in range(20_001)}))
    assert caught.value.error_code == "film_too_long"
    data = bytes(3000)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 3000, 3000, 1, 0) + b"a" + data
    listed = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 3000, 3000, 1, 0, 0, 0, 0, 0, 0)
        + bytes([97 + each])
        for each in range(5)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 5, 5, len(listed), len(local), 0)
    assert "in one another" in refused(local + listed + end)


def test_any_damage_is_a_refusal_or_other_contents_and_nothing_else() -> None:
    whole, chance = zipped(FILES, comment=b"note"), random.Random(0)
    for _ in range(2000):
        changed = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            archive = Zip(bytes(changed))
            assert sum(len(archive.read(name)) for name in archive.names) <= len(whole)
        except InvalidRequest as error:
            assert error.error_code in {"film_invalid", "film_too_long"}
