"""Every route of the documentation against every kind of bad credential: each is refused, before anything is read."""

import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.api import access, connections
from app.core import callers, jobs, keys
from app.core.records import ApiKey, utc_now

Case = tuple[str, str, dict[str, Any]]  # method, path, arguments of the request
Attempt = dict[str, Any]

OPEN = {"/livez", "/readyz"}
PLACES = {"model": "tiny", "sha256": "0" * 12, "kimg": "1.0"}
BODIES: dict[str, Any] = {  # where only the body says which model is meant
    "/v1/images/generations": {"model": "tiny"},
    "/v1/images/variations": {"of": "/v1/models/tiny/image?seed=1"},
}
GIB = 1024**3
PIECE = b"10000\r\n" + bytes(65_536) + b"\r\n"  # of a chunked body


@pytest.fixture(scope="module")
def routes(public: Any) -> list[Case]:
    """Every route that is documented, asked for about a training, or the model `tiny`."""
    with public.db.begin() as session:
        places = PLACES | {"job": jobs.submit(session, "train", {"name": "x"}).id}
    documented = httpx.get(f"{public.url}/v1/openapi.json").json()["paths"]
    cases = []
    for path, operations in documented.items():
        if path in OPEN:
            continue
        filled = re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], "x"), path)
        filled += "?kind=train" if path == "/v1/jobs" else ""
        for method in operations:
            cases.append((method.upper(), filled, {"json": BODIES.get(path, {})} if method == "post" else {}))
    assert len(cases) > 50
    return cases


@pytest.fixture(scope="module")
def http(public: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=public.url, timeout=30) as made:
        yield made


def bearer(key: str) -> Attempt:
    return {"headers": {"authorization": f"Bearer {key}"}}


def unknown(public: Any, make_key: Callable[..., str]) -> Attempt:
    """A key that could be ours, of another studio."""
    good = make_key(public, "admin")
    with public.db.begin() as session:
        session.delete(session.query(ApiKey).filter_by(sha256=keys.fingerprint(good)).one())
    return bearer(good)


def garbled(public: Any, make_key: Callable[..., str]) -> Attempt:
    good = make_key(public, "admin")
    return bearer(good[:-1] + ("0" if good[-1] != "0" else "1"))


def revoked(public: Any, make_key: Callable[..., str]) -> Attempt:
    good = make_key(public, "admin")
    with public.db.begin() as session:
        keys.revoke(session, session.query(ApiKey).filter_by(sha256=keys.fingerprint(good)).one().id)
    return bearer(good)


def expired(public: Any, make_key: Callable[..., str]) -> Attempt:
    good = make_key(public, "admin", expires_at=utc_now() + timedelta(hours=1))
    with public.db.begin() as session:
        row = session.query(ApiKey).filter_by(sha256=keys.fingerprint(good)).one()
        row.expires_at = utc_now() - timedelta(seconds=1)
    return bearer(good)


def in_the_query(public: Any, make_key: Callable[..., str]) -> Attempt:
    return {"params": {"key": make_key(public, "admin"), "api_key": make_key(public, "admin")}}


def twice(public: Any, make_key: Callable[..., str]) -> Attempt:
    header = ("authorization", f"Bearer {make_key(public, 'admin')}")
    return {"headers": [header, header]}


BAD = {
    "none": lambda *_: {},
    "unknown": unknown,
    "garbled": garbled,
    "revoked": revoked,
    "expired": expired,
    "in the query": in_the_query,
    "twice": twice,
}


@pytest.mark.parametrize("kind", BAD)
def test_every_route_refuses_a_bad_key(
    public: Any, http: httpx.Client, routes: list[Case], make_key: Callable[..., str], kind: str
) -> None:
    attempt = BAD[kind](public, make_key)
    for method, path, arguments in routes:
        answer = http.request(method, path, **(arguments | attempt))
        assert answer.status_code == 401, f"{method} {path}"
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", BAD)
def test_a_websocket_refuses_a_bad_key(public: Any, make_key: Callable[..., str], kind: str) -> None:
    attempt = BAD[kind](public, make_key)
    place = public.url.replace("http", "ws", 1) + "/v1/models/tiny/live"
    url = str(httpx.URL(place, params=attempt.get("params", {})))
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=attempt.get("headers"), proxy=None):
        pass
    assert refused.value.response.status_code == 401


def test_every_route_refuses_a_key_of_another_scope(
    public: Any, http: httpx.Client, routes: list[Case], make_key: Callable[..., str]
) -> None:
    """None is open to both of the scopes that are not admin."""
    generate, train = (bearer(make_key(public, scope)) for scope in ("generate", "train"))
    for method, path, arguments in routes:
        answer = http.request(method, path, **(arguments | generate))
        if answer.status_code != 403:  # this is the right scope
            answer = http.request(method, path, **(arguments | train))
        assert answer.status_code == 403, f"{method} {path}: {answer.text}"
        assert answer.json()["error"]["code"] == "not_allowed"


@pytest.mark.parametrize("publishable", [False, True])
def test_every_route_refuses_a_key_of_another_model(
    public: Any, http: httpx.Client, routes: list[Case], make_key: Callable[..., str], publishable: bool
) -> None:
    origins = ["https://sketch.example"] if publishable else []
    secret = make_key(public, "generate", model="other", origins=origins, publishable=publishable)
    attempt = bearer(secret)
    attempt["headers"] |= {"origin": "https://sketch.example"} if publishable else {}
    for method, path, arguments in routes:
        answer = http.request(method, path, **(arguments | attempt))
        if (method, path) == ("GET", "/v1/models") and not publishable:
            assert [model["id"] for model in answer.json()["data"]] == ["other"]
        else:
            assert answer.status_code == 403, f"{method} {path}: {answer.text}"


def test_only_probes_and_documentation_are_open() -> None:
    assert {"/livez", "/readyz", "/docs", "/v1/openapi.json"} <= access.OPEN_PATHS
    assert not any(path.startswith("/v1/") and path != "/v1/openapi.json" for path in access.OPEN_PATHS)
    assert callers.Caller().scopes == frozenset()


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/models", "/v1/recipes/verify", "/v1/renders"])
@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("garbled", 401), ("other", 403)])
def test_an_upload_of_a_gibibyte_without_a_fitting_key_is_neither_kept_nor_held(
    public: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_key: Callable[..., str],
    path: str,
    scope: str | None,
    status: int,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where forms are spooled
    other = "generate" if path in ("/v1/datasets", "/v1/models") else "train"
    secret = make_key(public, other) if scope == "other" else "gnv_garbled"
    credential = f"Authorization: Bearer {secret}\r\n" if scope else ""
    before, memory = stored(public.settings.data), psutil.Process().memory_info().rss
    host, port = public.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{credential}Transfer-Encoding: chunked\r\n"
        head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        first = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        connection.sendall(head.encode() + f"{len(first):x}\r\n".encode() + first + b"\r\n")
        sent = 0
        try:
            while sent < GIB:
                connection.sendall(PIECE)
                sent += 65_536
        except OSError:  # cut off
            pass
        assert connection.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode())
    assert sent < GIB // 16
    assert list(tmp_path.iterdir()) == []
    assert stored(public.settings.data) == before
    assert psutil.Process().memory_info().rss - memory < 32 * 1024**2


def stored(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file() and "sqlite3" not in path.name}


def test_an_upload_that_goes_on_slowly_after_its_refusal_is_cut_off(
    public: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    host, port = public.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(b"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.1)
