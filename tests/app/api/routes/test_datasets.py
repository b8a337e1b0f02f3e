"""Artwork goes in over HTTP, and what became of every file comes out."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.core import jobs
from app.core.records import Dataset


def test_an_upload_is_answered_at_once_with_its_job(client: httpx.Client, app: Any) -> None:
    files = [("files", ("a.png", b"1")), ("files", ("b.png", b"2"))]
    answer = client.post("/v1/datasets", data={"name": "two", "crop": "none", "background": "#102030"}, files=files)
    assert answer.status_code == 201
    dataset = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert (dataset["name"], dataset["status"]) == ("two", "preparing")
    assert client.get(answer.headers["location"]).json() == dataset
    job = client.get(f"/v1/jobs/{dataset['job']}").json()
    assert (job["kind"], job["status"]) == ("prepare", "queued")
    expected = {"dataset": dataset["id"], "resolution": None, "crop": "none", "background": "#102030"}
    assert job["request"] == expected
    with app.db.read() as session:
        source = app.storage.path(session.get(Dataset, dataset["id"]).source_sha256)
    with zipfile.ZipFile(source) as packed:
        assert packed.namelist() == ["a.png", "b.png"]
    assert list((app.settings.data / "blobs" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_field", "name"),
        ({"name": "x", "resolution": "100"}, "invalid_request", "resolution"),
        ({"name": "x", "resolution": "big"}, "invalid_request", "resolution"),
        ({"name": "x", "crop": "sideways"}, "invalid_request", "crop"),
        ({"name": "x", "colour": "red"}, "unknown_field", "colour"),
    ],
)
def test_a_wrong_field_is_refused_by_name(client: httpx.Client, fields: dict[str, str], code: str, param: str) -> None:
    answer = client.post("/v1/datasets", data=fields, files={"files": ("a.png", b"1")})
    assert answer.status_code == 422
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


def test_a_resolution_left_blank_is_absent(client: httpx.Client) -> None:
    answer = client.post("/v1/datasets", data={"name": "x", "resolution": ""}, files={"files": ("a.png", b"1")})
    assert answer.status_code == 201


def test_an_upload_over_the_limit_is_413_and_leaves_nothing(client: httpx.Client, app: Any) -> None:
    files = {"files": ("a.png", bytes(app.settings.max_upload_mib * 1024 * 1024 + 1))}
    answer = client.post("/v1/datasets", data={"name": "x"}, files=files)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert list((app.settings.data / "blobs" / "tmp").iterdir()) == []


def test_the_verdicts_of_a_ready_dataset_add_up_to_what_was_sent(client: httpx.Client, noise: str) -> None:
    dataset = client.get(f"/v1/datasets/{noise}").json()
    assert (dataset["status"], dataset["resolution"], dataset["error"]) == ("ready", 32, None)
    assert (dataset["sent"], dataset["count"], dataset["captions"]) == (82, 40, 40)
    assert sum(dataset["verdicts"].values()) == dataset["sent"]
    assert (dataset["verdicts"]["duplicate"], dataset["verdicts"]["corrupt"]) == (1, 1)
    assert dataset["readiness"]


def test_items_are_paged_in_the_order_sent_with_verdict_and_reason(client: httpx.Client, noise: str) -> None:
    path, items, after = f"/v1/datasets/{noise}/items", [], -1
    while True:
        page = client.get(path, params={"limit": 30, "after": after}).json()
        items += page["data"]
        after = int(page["last_id"])
        if not page["has_more"]:
            break
    assert [item["index"] for item in items] == list(range(82))
    by_name = {item["file_name"]: item for item in items}
    assert (by_name["7.png"]["verdict"], by_name["7.png"]["caption"]) == ("ok", "noise number 7")
    assert (by_name["broken.png"]["verdict"], by_name["broken.png"]["thumbnail"]) == ("corrupt", None)
    assert by_name["broken.png"]["reason"]
    last_first = client.get(path, params={"order": "desc", "limit": 2}).json()["data"]
    assert [item["index"] for item in last_first] == [81, 80]


@pytest.mark.parametrize(("accept", "image_format"), [("image/png", "PNG"), ("image/webp,*/*", "WEBP"), ("*/*", "PNG")])
def test_a_thumbnail_is_the_prepared_picture(
    client: httpx.Client, app: Any, noise: str, accept: str, image_format: str
) -> None:
    page = client.get(f"/v1/datasets/{noise}/items", params={"limit": 200}).json()
    item = next(item for item in page["data"] if item["file_name"] == "7.png")
    answer = client.get(item["thumbnail"], headers={"accept": accept})
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.format == image_format
    with app.db.read() as session:
        array = app.storage.path(session.get(Dataset, noise).array_sha256)
    assert np.array_equal(np.asarray(picture.convert("RGB")), np.load(array)[item["position"]])


def test_a_thumbnail_of_what_was_left_out_is_404_with_the_reason(client: httpx.Client, noise: str) -> None:
    page = client.get(f"/v1/datasets/{noise}/items", params={"limit": 200}).json()
    broken = next(item for item in page["data"] if item["verdict"] == "corrupt")
    answer = client.get(f"/v1/datasets/{noise}/items/{broken['index']}/thumbnail")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "item_left_out")
    assert broken["reason"] in answer.json()["detail"]
    beyond = client.get(f"/v1/datasets/{noise}/items/82/thumbnail")
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (404, "item_not_found")


def test_items_of_a_dataset_in_preparation_are_409(client: httpx.Client) -> None:
    made = client.post("/v1/datasets", data={"name": "x"}, files={"files": ("a.png", b"1")}).json()
    answer = client.get(f"/v1/datasets/{made['id']}/items")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "dataset_not_ready")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("count", [0, 1])
def test_artwork_too_little_to_train_on_fails_with_the_reason(
    client: httpx.Client, prepared: Callable[..., str], make_archive: Callable[..., bytes], count: int
) -> None:
    content = make_archive(count) if count else b"PK\x05\x06" + bytes(18)
    dataset = client.get(f"/v1/datasets/{prepared(content)}").json()
    assert dataset["status"] == "failed"
    assert dataset["error"]["message"]
    assert client.get(f"/v1/jobs/{dataset['job']}").json()["error"] == dataset["error"]


def test_a_dataset_is_listed_and_deleted_with_its_files(
    client: httpx.Client, app: Any, prepared: Callable[..., str], make_archive: Callable[..., bytes]
) -> None:
    dataset = prepared(make_archive(20))
    with app.db.read() as session:
        row = session.get(Dataset, dataset)
    blobs = [row.source_sha256, row.array_sha256, row.manifest_sha256]
    assert dataset in {entry["id"] for entry in client.get("/v1/datasets").json()["data"]}
    assert client.delete(f"/v1/datasets/{dataset}").json() == {"id": dataset, "object": "dataset", "deleted": True}
    assert client.get(f"/v1/datasets/{dataset}").status_code == 404
    assert not any((app.storage.root / "sha256" / blob[:2] / blob).exists() for blob in blobs)


def test_a_dataset_made_of_the_file_of_a_render_leaves_it_that_file(client: httpx.Client, app: Any) -> None:
    dataset = client.post("/v1/datasets", data={"name": "drawn"}, files={"files": ("a.png", b"drawn")}).json()
    client.post(f"/v1/jobs/{dataset['job']}/cancel")
    with app.db.begin() as session:
        source = session.get(Dataset, dataset["id"]).source_sha256
        drawn = jobs.submit(session, "render", {})
        drawn.status, drawn.result = "succeeded", {"file": source}
    assert client.delete(f"/v1/datasets/{dataset['id']}").status_code == 200
    assert app.storage.path(source).exists()


def test_lists_are_paged_by_cursor_in_both_orders(client: httpx.Client) -> None:
    for index in range(3):
        client.post("/v1/datasets", data={"name": f"paged {index}"}, files={"files": ("a.png", b"1")})
    whole = [entry["id"] for entry in client.get("/v1/datasets", params={"limit": 200}).json()["data"]]
    for order, expected in (("desc", whole), ("asc", whole[::-1])):
        seen: list[str] = []
        more = True
        while more:
            after = {"after": seen[-1]} if seen else {}
            page = client.get("/v1/datasets", params={"limit": 2, "order": order, **after}).json()
            seen += [entry["id"] for entry in page["data"]]
            more = page["has_more"]
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], seen[-1])
        assert seen == expected
