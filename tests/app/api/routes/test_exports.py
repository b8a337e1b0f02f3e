"""Artworks go out as one zip, of any size, with all that is known of them."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import exporting
from app.core.settings import Settings

ROUTE = "/v1/artworks"


def keep(client: httpx.Client, *, seed: int, **about: Any) -> dict[str, Any]:
    """Keep a picture of `tiny`."""
    drawn = client.post("/v1/images/generations", json={"model": "tiny", "seed": seed, "response_format": "url"})
    answer = client.post(ROUTE, json={"recipe": drawn.json()["data"][0]["recipe"]} | about)
    assert answer.status_code == 201, answer.text
    kept: dict[str, Any] = answer.json()
    return kept


def test_any_selection_is_exported_with_its_recipes(client: httpx.Client) -> None:
    one = keep(client, seed=21, tags=["sent"], title='A "title": /with\\ 100% of ./../it')
    two = keep(client, seed=22, tags=["sent", "moss"], output_format="webp")
    keep(client, seed=23)
    both, first = [two, one], [one]
    for query, expected in (
        ({"tag": "sent"}, both),
        ({"id": [one["id"], two["id"]]}, both),
        ({"q": "title 100%", "model": "tiny"}, first),
        ({"tag": "sent", "id": one["id"]}, first),
    ):
        answer = client.get(f"{ROUTE}/export", params=query)
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            *names, last = archive.namelist()
            told = json.loads(archive.read(last))
            files = [archive.read(name) for name in names]
        assert last == "recipes.json"
        assert files == [client.get(kept["url"]).content for kept in expected]
        assert told == [
            {"file": name} | {field: value for field, value in kept.items() if field not in {"object", "url"}}
            for name, kept in zip(names, expected, strict=True)
        ]
    assert names == ["0001 A title with 100 of ...it.png"]


def test_an_export_of_nothing_is_an_empty_list(client: httpx.Client) -> None:
    answer = client.get(f"{ROUTE}/export", params={"tag": "nobody has this"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert json.loads(archive.read("recipes.json")) == []


def test_an_export_is_bounded_and_names_what_is_missing(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (31, 32):
        keep(client, seed=seed, tags=["bounded"])
    gone = client.get(f"{ROUTE}/export", params={"id": ["art_gone"]})
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "artwork_not_found")
    assert client.get(f"{ROUTE}/export", params={"tags": "bounded"}).status_code == 422
    for limit, most in (("MAX_ARTWORKS", 1), ("MAX_BYTES", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(exporting, limit, most)
            answer = client.get(f"{ROUTE}/export", params={"tag": "bounded"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "export_too_large")
            assert "2 artworks" in answer.json()["detail"]


def test_what_is_deleted_during_an_export_is_left_out(start_app: Callable[[Settings], Any], tmp_path: Path) -> None:
    with start_app(Settings(data=tmp_path, threads=1, max_batch=2)) as running, running.client() as client:
        running.publish("tiny")
        kept = [keep(client, seed=seed) for seed in (1, 2)]
        services: Any = running  # has the storage and database that an export takes
        parts = exporting.export(services, [each["id"] for each in kept])
        client.delete(f"{ROUTE}/{kept[1]['id']}")
        with zipfile.ZipFile(io.BytesIO(b"".join(parts))) as archive:
            assert archive.namelist() == ["0001 tiny, seed 1.png", "recipes.json"]
            assert [each["id"] for each in json.loads(archive.read("recipes.json"))] == [kept[0]["id"]]
