"""Pages of other origins are let in where a key names them, and nowhere else; no form of theirs reaches loopback."""

import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

PICTURE = "/v1/models/tiny/image?seed=1"
PAGE = "https://sketch.example"


def ask(running: Any, method: str, path: str, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, running.url + path, headers=names, timeout=30)


def preflight(running: Any, path: str, origin: str) -> httpx.Response:
    wish = {"access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    return ask(running, "OPTIONS", path, origin=origin, **wish)


@pytest.fixture(scope="module")
def sketch(public: Any, make_key: Callable[..., str]) -> str:
    """A publishable key for one page."""
    return make_key(public, "generate", model="tiny", origins=[PAGE], publishable=True)


def test_a_page_that_a_key_names_is_let_in(public: Any, sketch: str) -> None:
    asked = preflight(public, "/v1/images/generations", PAGE)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "authorization" in asked.headers["access-control-allow-headers"]
    drawn = ask(public, "GET", PICTURE, origin=PAGE, authorization=f"Bearer {sketch}")
    assert drawn.status_code == 200
    assert drawn.headers["access-control-allow-origin"] == PAGE
    assert "x-ganvas-recipe" in drawn.headers["access-control-expose-headers"]
    assert "origin" in drawn.headers["vary"].lower()
    assert "access-control-allow-credentials" not in drawn.headers


def test_an_error_can_be_read_by_the_page_too(public: Any, sketch: str) -> None:
    refused = ask(public, "GET", "/v1/models/other/image?seed=1", origin=PAGE, authorization=f"Bearer {sketch}")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "model_not_allowed"
    assert refused.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://sketch.example", f"{PAGE}:8443", f"{PAGE}.evil.example"]
)
def test_a_page_that_no_key_names_is_refused(public: Any, sketch: str, origin: str) -> None:
    asked = preflight(public, "/v1/images/generations", origin)
    assert asked.status_code == 403
    assert "access-control-allow-origin" not in asked.headers
    refused = ask(public, "GET", PICTURE, origin=origin, authorization=f"Bearer {sketch}")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "origin_not_allowed"
    assert "access-control-allow-origin" not in refused.headers


def test_a_key_that_may_be_seen_is_of_no_use_outside_of_pages(public: Any, sketch: str) -> None:
    assert ask(public, "GET", PICTURE, authorization=f"Bearer {sketch}").status_code == 403


def test_a_key_that_names_pages_serves_programs_too(public: Any, make_key: Callable[..., str]) -> None:
    secret = make_key(public, "generate", origins=["https://app.example"])
    assert ask(public, "GET", PICTURE, authorization=f"Bearer {secret}").status_code == 200
    assert ask(public, "GET", PICTURE, authorization=f"Bearer {secret}", origin=PAGE).status_code == 403


WRITES = [
    ("POST", "/v1/images/generations"),
    ("POST", "/v1/datasets"),
    ("DELETE", "/v1/models/tiny"),
    ("POST", "/v1/keys"),
]


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_form_of_another_site_changes_nothing_on_loopback(app: Any, method: str, path: str) -> None:
    """Without an Origin, which some browsers leave out of some forms."""
    refused = ask(app, method, path, sec_fetch_site="cross-site")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "not_allowed"
    assert ask(app, "GET", PICTURE, sec_fetch_site="cross-site").status_code == 200  # a picture in a page of theirs


@pytest.mark.parametrize(("method", "path"), [*WRITES, ("GET", PICTURE), ("GET", "/v1/models"), ("GET", "/v1/keys")])
@pytest.mark.parametrize(
    "names",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": "a/?x="},
        {"host": "127.0.0.1@evil.example"},
    ],
)
def test_other_sites_and_names_bound_anew_reach_nothing_on_loopback(
    app: Any, method: str, path: str, names: dict[str, str]
) -> None:
    assert ask(app, method, path, **names).status_code == 403


def test_a_preflight_of_another_site_is_refused_on_loopback(app: Any) -> None:
    asked = preflight(app, "/v1/images/generations", "https://evil.example")
    assert asked.status_code == 403
    assert "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize("name", ["host", "origin", "sec-fetch-site"])
def test_a_name_that_came_twice_is_believed_neither_time(app: Any, name: str) -> None:
    sent = {"host": "localhost", "origin": "http://localhost", "sec-fetch-site": "same-origin"}[name]
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        head = "GET /v1/models HTTP/1.1\r\n" + ("" if name == "host" else "host: localhost\r\n")
        connection.sendall(f"{head}{name}: {sent}\r\n{name}: {sent}\r\n\r\n".encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")


def test_a_key_that_is_sent_counts_on_loopback_too(app: Any, make_key: Callable[..., str]) -> None:
    secret = make_key(app, "train")
    assert ask(app, "GET", PICTURE, authorization=f"Bearer {secret}").status_code == 403
    assert ask(app, "GET", PICTURE, authorization=f"Bearer {secret}0").status_code == 401
    assert ask(app, "GET", PICTURE, authorization="Bearer anything").status_code == 200
