"""Models come in as files: sound ones are served, and none of the others leaves anything behind."""

import http.client
import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from sqlalchemy import select

from app.core.records import Checkpoint
from app.core.storage import Storage

Header = dict[str, Any]


@pytest.fixture(scope="module")
def weights(client: httpx.Client) -> bytes:
    """A checkpoint as another studio gives it."""
    return client.get("/v1/models/tiny/download").content


def sent(
    client: httpx.Client, file: bytes, name: str | None = None, called: str = "a.safetensors", **fields: str
) -> Any:
    named = fields if name is None else {"name": name, **fields}
    return client.post("/v1/models", data=named, files={"file": (called, file)})


def changed(file: bytes, change: Callable[[Header], None]) -> bytes:
    """The same tensors under another header."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    change(header)
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + file[8 + length :]


def test_a_model_that_was_downloaded_is_imported_and_draws_the_same(client: httpx.Client, weights: bytes) -> None:
    answer = sent(client, weights, "brought", license="CC-BY-4.0")
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/models/brought")
    shown = answer.json()
    assert shown == client.get("/v1/models/brought").json()
    original = client.get("/v1/models/tiny").json()
    assert {**shown, "id": "", "created": 0, "checkpoints": [], "license": None, "metrics": {}} == {
        **original,
        **{"id": "", "created": 0, "checkpoints": [], "metrics": {}, "checkpoint": shown["checkpoint"]},
    }
    assert (shown["license"], shown["checkpoints"][0]["bytes"]) == ("CC-BY-4.0", len(weights))
    pictures = [
        client.get(f"/v1/models/{name}@{shown['checkpoint'][:12]}/image?seed=3") for name in ("tiny", "brought")
    ]
    assert pictures[1].status_code == 200
    assert client.get("/v1/models/brought/download").content == weights
    assert client.delete("/v1/models/brought").status_code == 200


def test_without_a_name_the_file_names_the_model(client: httpx.Client, weights: bytes) -> None:
    assert sent(client, weights, called="C:\\models\\from-a-file.safetensors").json()["id"] == "from-a-file"
    refused = sent(client, weights, called="../../..safetensors")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "model_name_invalid")


def test_a_name_that_is_taken_is_a_conflict(client: httpx.Client, weights: bytes) -> None:
    answer = sent(client, weights, "tiny")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_exists")
    assert answer.headers["x-should-retry"] == "false"


def test_a_licence_is_not_changed_on_the_way(client: httpx.Client, weights: bytes) -> None:
    def license_(header: Header) -> None:
        told = json.loads(header["__metadata__"]["ganvas"])
        header["__metadata__"]["ganvas"] = json.dumps(told | {"license": "MIT"})

    licensed = changed(weights, license_)
    refused = sent(client, licensed, "relicensed", license="CC0")
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "license")
    assert sent(client, licensed, "relicensed").json()["license"] == "MIT"


def test_the_same_key_imports_once(client: httpx.Client, weights: bytes) -> None:
    answers = [
        client.post(
            "/v1/models",
            data={"name": "imported-once"},
            files={"file": ("a.safetensors", weights)},
            headers={"idempotency-key": "import-once"},
        )
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


CANARY = Path(tempfile.gettempdir()) / f"ganvas-pickle-ran-{os.getpid()}"


class Program:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(CANARY), "w"))


def zip_pickle() -> bytes:
    place = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, place)
    return place.getvalue()


PICKLES = {f"protocol {protocol}": pickle.dumps(Program(), protocol) for protocol in range(6)}
PICKLES |= {"of a dictionary": pickle.dumps({"a": 1}, 0), "of torch": zip_pickle()}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_is_refused_whatever_it_is_called(client: httpx.Client, kind: str) -> None:
    for called in ("innocent.safetensors", "model", "model.PKL"):
        refused = sent(client, PICKLES[kind], "pickled", called=called)
        assert (refused.status_code, refused.json()["error"]["code"]) == (422, "pickle_refused"), refused.text
    assert not CANARY.exists()


@pytest.mark.parametrize("suffix", ["pkl", "pt", "pth", "ckpt", "PT"])
def test_what_is_called_a_pickle_is_refused_whatever_it_is(client: httpx.Client, weights: bytes, suffix: str) -> None:
    refused = sent(client, weights, "called", called=f"model.{suffix}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "pickle_refused")
    assert "safetensors" in refused.json()["detail"]


def test_a_refused_file_leaves_nothing_behind(app: Any, client: httpx.Client, weights: bytes) -> None:
    storage: Storage = app.storage
    before = {path for path in storage.root.rglob("*") if path.is_file()}
    spoiled = bytearray(weights)
    spoiled[-4:] = struct.pack("<f", float("nan"))
    refused = sent(client, bytes(spoiled), "spoiled")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "checkpoint_invalid")
    assert "NaN" in refused.json()["detail"]
    assert {path for path in storage.root.rglob("*") if path.is_file()} == before
    assert client.get("/v1/models/spoiled").status_code == 404
    with app.db.read() as session:
        assert "spoiled" not in session.scalars(select(Checkpoint.model_name)).all()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"data": {"name": "x"}}, "multipart_expected"),
        ({"json": {"name": "x"}}, "multipart_expected"),
        ({"files": {"files": ("a.safetensors", b"x")}}, "unknown_field"),
        ({"files": {"name": (None, b"x")}}, "missing_field"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"x"))]}, "invalid_request"),
        ({"files": {"file": ("a", b"x")}, "data": {"promote": "yes"}}, "unknown_field"),
        ({"files": {"file": ("a", b"x")}, "data": {"name": "a/../b"}}, "model_name_invalid"),
        ({"files": {"file": ("a", b"x")}, "data": {"license": "x" * 201}}, "invalid_request"),
        ({"files": {"file": ("a", b"")}}, "checkpoint_invalid"),
    ],
)
def test_a_request_of_another_shape_is_told_what_is_wrong(
    client: httpx.Client, request_: dict[str, Any], code: str
) -> None:
    refused = client.post("/v1/models", **request_)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, code), refused.text


def test_a_body_over_the_limit_is_refused_by_its_length(app: Any) -> None:
    connection = http.client.HTTPConnection(urlsplit(app.url).netloc)
    connection.putrequest("POST", "/v1/models")
    connection.putheader("content-length", str(2**31))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_another_zip_is_no_checkpoint(client: httpx.Client) -> None:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("weights.npy", b"x" * 100)
    assert sent(client, place.getvalue(), "zipped").json()["error"]["code"] == "checkpoint_invalid"
