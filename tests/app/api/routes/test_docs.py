"""The documentation is a page that needs no other server than this one."""

import hashlib
import json
import re

import httpx
import pytest

from app.api.routes.docs import FOLDER, PAGE_POLICY


def test_the_page_and_all_its_parts_are_served_from_here_and_nothing_is_inline(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers.get_list("content-security-policy") == [PAGE_POLICY]
    assert "unsafe-inline" not in PAGE_POLICY.partition("script-src")[2].partition(";")[0]
    parts = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert len(parts) == 3
    assert re.findall(r"<script(?! defer src)|<style|https?://", page.text) == []
    for part in parts:
        answer = client.get(str(page.url.join(part)))
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/css" if part.endswith(".css") else "text/javascript")
        assert answer.headers["cache-control"] == "public, max-age=3600"


def test_what_the_page_reads_is_the_document_of_this_studio(client: httpx.Client) -> None:
    start = client.get("/docs/start.js").text
    assert 'url: "v1/openapi.json"' in start
    assert client.get("/v1/openapi.json").json()["info"]["title"] == "Ganvas"


def test_what_others_wrote_of_the_page_is_as_they_published_it() -> None:
    origin = json.loads((FOLDER / "origin.json").read_text())
    assert {"swagger-ui-bundle.js", "swagger-ui.css", "LICENSE", "NOTICE"} <= origin["files"].keys()
    for name, sha256 in origin["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize(
    "path", ["/docs/index.html", "/docs/LICENSE", "/docs/origin.json", "/docs/../main.py", "/docs/%2e%2e/main.py"]
)
def test_no_other_file_is_a_part_of_it(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404
