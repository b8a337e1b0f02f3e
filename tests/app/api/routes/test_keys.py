"""Keys over HTTP: shown once, kept as a fingerprint, held to what they say, and gone at once when revoked."""

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from app.core import audit
from app.core.records import ApiKey, utc_now

PAGE = "https://sketch.example"
PUBLISHABLE = {"name": "sketch", "model": "tiny", "origins": [PAGE + "/"], "publishable": True}


@pytest.fixture
def admin(public: Any, make_key: Any) -> Iterator[httpx.Client]:
    with public.client(authorization=f"Bearer {make_key(public, 'admin')}") as made:
        yield made


def test_a_key_is_shown_once_and_listed_without_itself(public: Any, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"name": "mine", "scopes": ["generate", "train"]})
    assert made.status_code == 201
    key = made.json()["key"]
    assert made.headers["location"] == f"/v1/keys/{made.json()['id']}"
    assert made.headers["cache-control"] == "no-store"
    assert key.startswith(made.json()["hint"])
    listed = admin.get("/v1/keys", params={"limit": 200})
    assert key not in listed.text
    (shown,) = (row for row in listed.json()["data"] if row["id"] == made.json()["id"])
    assert shown == {name: value for name, value in made.json().items() if name != "key"}
    with public.client(authorization=f"Bearer {key}") as client:
        assert client.get("/v1/datasets").status_code == 200
        assert client.get("/v1/keys").status_code == 403
    database = public.settings.data / "ganvas.sqlite3"
    assert key.encode() not in database.read_bytes() + database.with_name("ganvas.sqlite3-wal").read_bytes()


def test_a_revoked_key_ends_at_once_and_stays_in_the_list(public: Any, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"name": "short"}).json()
    with public.client(authorization=f"Bearer {made['key']}") as client:
        assert client.get("/v1/models").status_code == 200  # and is remembered
        assert admin.delete(f"/v1/keys/{made['id']}").json() == {"id": made["id"], "object": "key", "deleted": True}
        assert client.get("/v1/models").status_code == 401
    (shown,) = (row for row in admin.get("/v1/keys?limit=200").json()["data"] if row["id"] == made["id"])
    assert shown["revoked_at"] is not None
    assert admin.delete("/v1/keys/key_0").json()["error"]["code"] == "key_not_found"


def test_a_key_knows_when_it_was_last_used(public: Any, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"name": "used"}).json()
    with public.client(authorization=f"Bearer {made['key']}") as client:
        client.get("/v1/models")
        client.get("/v1/models")
    for _ in range(100):
        with public.db.read() as session:
            row = session.get_one(ApiKey, made["id"])
        if row.last_used_at is not None:
            break
    assert row.last_used_at is not None
    assert abs((utc_now() - row.last_used_at).total_seconds()) < 60


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({}, "missing_field"),
        ({"name": "x", "scopes": ["everything"]}, "invalid_request"),
        ({"name": "x", "scopes": []}, "invalid_request"),
        ({"name": "x", "rate": "often"}, "rate_invalid"),
        ({"name": "x", "rate": "0/minute"}, "rate_invalid"),
        ({"name": "x", "origins": ["*"]}, "origin_invalid"),
        ({"name": "x", "origins": ["https://*.example"]}, "origin_invalid"),
        ({"name": "x", "origins": ["sketch.example"]}, "origin_invalid"),
        ({"name": "x", "origins": ["https://sketch.example/path"]}, "origin_invalid"),
        ({"name": "x", "origins": ["https://sketch.example:x"]}, "origin_invalid"),
        ({"name": "x", "model": "nobody"}, "model_not_found"),
        ({"name": "x", "model": "tiny", "scopes": ["admin"]}, "key_does_not_fit"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "invalid_request"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "invalid_request"),
        (PUBLISHABLE | {"model": None}, "key_does_not_fit"),
        (PUBLISHABLE | {"origins": []}, "key_does_not_fit"),
        (PUBLISHABLE | {"scopes": ["generate", "train"]}, "key_does_not_fit"),
    ],
)
def test_a_key_that_does_not_fit_is_refused(admin: httpx.Client, wish: dict[str, Any], code: str) -> None:
    refused = admin.post("/v1/keys", json=wish)
    assert refused.status_code == (404 if code == "model_not_found" else 422)
    assert refused.json()["error"]["code"] == code


def test_the_same_request_again_makes_no_second_key_and_shows_none(admin: httpx.Client) -> None:
    wish = {"json": {"name": "again"}, "headers": {"idempotency-key": "key-again"}}
    made, again = (admin.post("/v1/keys", **wish) for _ in range(2))
    assert (made.status_code, again.status_code) == (201, 409)
    assert again.json()["error"]["code"] == "key_shown"
    assert made.json()["key"] not in again.text
    assert sum(row["name"] == "again" for row in admin.get("/v1/keys?limit=200").json()["data"]) == 1


def test_a_publishable_key_draws_and_does_nothing_else(public: Any, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json=PUBLISHABLE).json()
    assert made["key"].startswith("gnv_pub_")
    assert (made["rate"], made["origins"], made["scopes"]) == ("60/minute", [PAGE], ["generate"])
    with public.client(authorization=f"Bearer {made['key']}", origin=PAGE) as page:
        drawn = page.post("/v1/images/generations", json={"seed": 1})  # its model is the default one
        assert (drawn.status_code, drawn.json()["model"]) == (200, "tiny")
        assert page.post("/v1/images/generations", json={"model": "gpt-image-1"}).json()["model"] == "tiny"
        assert page.get("/v1/models/tiny").status_code == 200
        assert page.get("/v1/models/tiny/image?seed=1").status_code == 200
        of = {"of": drawn.json()["data"][0]["recipe"], "seed": 5}
        assert page.post("/v1/images/variations", json=of).status_code == 200
        refused = [
            page.post("/v1/images/generations", json={"keep": True}),
            page.post("/v1/images/generations", json={"model": "other"}),
            page.post("/v1/images/variations", json={"of": "/v1/models/other/image?seed=1"}),
            page.post("/v1/images/variations", files={"image": b"x"}, data={"seed": "1"}),
            page.get("/v1/models"),
            page.get("/v1/models/tiny/download"),
            page.get("/v1/artworks"),
            page.post("/v1/renders", json={"kind": "batch", "seeds": "1"}),
        ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)


def test_a_key_for_one_model_reads_that_model_too(public: Any, make_key: Any) -> None:
    with public.client(authorization=f"Bearer {make_key(public, 'generate', model='tiny')}") as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["tiny"]
        statuses = {
            path: client.get(path).status_code
            for path in ("/v1/models/tiny/download", "/v1/models/tiny/directions", "/v1/models/other/download")
        }
    assert list(statuses.values()) == [200, 200, 403]


def test_a_page_plays_live_with_its_own_model_alone(public: Any, make_key: Any) -> None:
    secret = make_key(public, "generate", model="tiny", origins=[PAGE], publishable=True)
    offered = [Subprotocol("ganvas"), Subprotocol(f"key.{secret}")]
    place = public.url.replace("http", "ws", 1)
    with connect(f"{place}/v1/models/tiny/live", origin=PAGE, subprotocols=offered, proxy=None) as connection:
        connection.send("{}")
        assert isinstance(connection.recv(30), bytes)
    with connect(f"{place}/v1/models/other/live", origin=PAGE, subprotocols=offered, proxy=None) as connection:
        assert json.loads(connection.recv(30))["error"]["code"] == "model_not_allowed"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"{place}/v1/models/tiny/live", origin="https://evil.example", subprotocols=offered, proxy=None),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_pages_leave_some_live_connections_to_others(public: Any, make_key: Any) -> None:
    secret = make_key(public, "generate", model="tiny", origins=[PAGE], publishable=True)
    place = public.url.replace("http", "ws", 1) + "/v1/models/tiny/live"
    with contextlib.ExitStack() as stack:

        def joined(key: str, **options: Any) -> ClientConnection:
            headers = {"authorization": f"Bearer {key}"}
            connection = stack.enter_context(connect(place, additional_headers=headers, proxy=None, **options))
            with contextlib.suppress(ConnectionClosed):
                connection.send("{}")
            return connection

        for _ in range(3):
            assert isinstance(joined(secret, origin=PAGE).recv(30), bytes)
        assert json.loads(joined(secret, origin=PAGE).recv(30))["error"]["code"] == "live_full"
        assert isinstance(joined(make_key(public, "generate")).recv(30), bytes)


def test_a_key_ends_when_it_says(public: Any, admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"name": "x", "expires_at": (utc_now() + timedelta(seconds=1)).isoformat()})
    with public.client(authorization=f"Bearer {made.json()['key']}") as client:
        while client.get("/v1/models").status_code == 200:
            assert utc_now() < datetime.fromisoformat(made.json()["expires_at"]) + timedelta(seconds=2)
        assert "expired" in client.get("/v1/models").json()["detail"]


def test_keys_and_deletions_are_in_the_audit_log(public: Any, admin: httpx.Client) -> None:
    public.publish("doomed", seed=3)
    made = admin.post("/v1/keys", json={"name": "x"}).json()["id"]
    admin.delete(f"/v1/keys/{made}")
    assert admin.delete("/v1/models/doomed").status_code == 200
    with public.db.read() as session:
        entries = audit.latest(session, 100)
        (me,) = {entry.actor for entry in entries if entry.target == made}
        assert session.get_one(ApiKey, me).scopes == ["admin"]
    noted = [(entry.action, entry.target) for entry in entries if entry.actor == me]
    assert noted == [("key.created", made), ("key.revoked", made), ("model.deleted", "doomed")]
    assert {entry.address for entry in entries if entry.actor == me} == {"127.0.0.1"}
