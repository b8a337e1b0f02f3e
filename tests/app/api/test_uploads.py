"""Uploads of any size end as one zip on disk, and bad ones say what is wrong."""

import asyncio
import io
import random
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.api.multipart import FIELD_MAX_BYTES
from app.api.uploads import Received, receive
from app.core.errors import GanvasError, InvalidRequest, TooLarge

LIMIT = 10_000_000
File = tuple[str, tuple[str, bytes]]


def encoded(fields: dict[str, str], files: list[File]) -> tuple[str, bytes]:
    """A multipart body as a real client writes it."""
    request = httpx.Request("POST", "http://studio", data=fields, files=files)
    return request.headers["content-type"], request.read()


def received(folder: Path, content_type: str, body: bytes, *, piece: int = 65_536, limit: int = LIMIT) -> Received:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    return asyncio.run(receive(content_type, pieces(), folder, limit))


def zipped(*names: str) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        for name in names:
            archive.writestr(name, name.encode())
    return place.getvalue()


def test_a_single_zip_is_kept_byte_for_byte(tmp_path: Path) -> None:
    archive = zipped("a.png", "b.png")
    upload = received(tmp_path, *encoded({"name": "art"}, [("files", ("art.zip", archive))]))
    assert upload.archive.read_bytes() == archive
    assert (upload.fields, upload.files) == ({"name": "art"}, 1)


def test_a_zip_without_the_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    archive = zipped("a.png")
    upload = received(tmp_path, *encoded({}, [("files", ("blob", archive))]))
    assert upload.archive.read_bytes() == archive


@pytest.mark.parametrize("count", [1, 2, 300])
def test_loose_files_are_packed_in_order_under_their_own_names(tmp_path: Path, count: int) -> None:
    files: list[File] = [
        ("files", (f"bird/{index}.png", random.Random(index).randbytes(index))) for index in range(count)
    ]
    upload = received(tmp_path, *encoded({"name": "birds"}, files), piece=1_000)
    assert upload.files == count
    with zipfile.ZipFile(upload.archive) as archive:
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == [file for _, file in files]


def test_files_of_the_same_name_are_all_kept(tmp_path: Path) -> None:
    files: list[File] = [("files", ("a.png", b"1")), ("files", ("a.png", b"2"))]
    content_type, body = encoded({}, files)
    upload = received(tmp_path, content_type, body)
    with zipfile.ZipFile(upload.archive) as archive:
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == [
            ("a.png", b"1"),
            ("a (2).png", b"2"),
        ]


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_it_does_not_matter_how_the_network_cuts_the_body(tmp_path: Path, piece: int) -> None:
    files: list[File] = [("files", ("one\u00e9.png", b"\r\n--" * 40)), ("files", ("two.png", bytes(range(256))))]
    upload = received(tmp_path, *encoded({"name": "caf\u00e9"}, files), piece=piece)
    assert upload.fields == {"name": "caf\u00e9"}
    with zipfile.ZipFile(upload.archive) as archive:
        assert [archive.read(info) for info in archive.infolist()] == [content for _, (_, content) in files]


def refusal(folder: Path, content_type: str, body: bytes, limit: int = LIMIT) -> GanvasError:
    with pytest.raises(GanvasError) as caught:
        received(folder, content_type, body, limit=limit)
    return caught.value


def test_files_over_the_limit_are_refused(tmp_path: Path) -> None:
    body = encoded({}, [("files", ("a.png", b"x" * 600)), ("files", ("b.png", b"x" * 600))])
    assert isinstance(refusal(tmp_path, *body, limit=1_000), TooLarge)


def test_a_text_field_over_the_limit_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, *encoded({"name": "x" * (FIELD_MAX_BYTES + 1)}, [("files", ("a.png", b"1"))]))
    assert isinstance(error, TooLarge)
    assert error.param == "name"


def test_an_upload_without_files_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "multipart/form-data; boundary=x", b"--x--\r\n").error_code == "no_files"


def test_a_body_that_ends_in_the_middle_is_refused(tmp_path: Path) -> None:
    content_type, body = encoded({}, [("files", ("a.png", b"x" * 5_000))])
    assert refusal(tmp_path, content_type, body[:3_000]).error_code == "multipart_invalid"


def test_a_body_that_is_no_multipart_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "multipart/form-data; boundary=x", b"hello").error_code == "multipart_invalid"
    boundary = "x" * 1_000
    assert refusal(tmp_path, f"multipart/form-data; boundary={boundary}", b"").error_code == "multipart_invalid"
    error = refusal(tmp_path, "application/json", b"{}")
    assert isinstance(error, InvalidRequest)
    assert error.error_code == "multipart_expected"


def test_a_file_under_another_field_is_refused_by_name(tmp_path: Path) -> None:
    error = refusal(tmp_path, *encoded({}, [("picture", ("a.png", b"1"))]))
    assert (error.error_code, error.param) == ("unknown_field", "picture")


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to("/dev/full")  # every write to it fails with ENOSPC
    error = refusal(tmp_path, *encoded({}, [("files", ("a.png", b"x" * 100_000))]))
    assert error.error_code == "storage_full"
