"""Keys, where others can reach us: none is refused, scopes hold, and a revoked one ends."""

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from app.api import access
from app.api.routes import jobs as routes_jobs
from app.api.routes import live
from app.core import jobs, keys


def key(public: Any, *scopes: str) -> str:
    with public.db.begin() as session:
        return keys.create(session, "test", list(scopes))[1]


def ask(public: Any, path: str, key: str | None = None, **headers: str) -> httpx.Response:
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return httpx.get(public.url + path, headers=headers)


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer gnv_wrong"}])
def test_a_request_without_one_of_our_keys_is_401(public: Any, headers: dict[str, str]) -> None:
    response = ask(public, "/v1/models", **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/v1/openapi.json"])
def test_probes_and_documentation_need_no_key(public: Any, path: str) -> None:
    assert ask(public, path).status_code == 200


def test_a_key_opens_what_its_scopes_allow_and_no_more(public: Any) -> None:
    generate, train, admin = key(public, "generate"), key(public, "train"), key(public, "admin")
    allowed = {
        path: [ask(public, path, one).status_code for one in (generate, train, admin)]
        for path in ("/v1/models/tiny/image?seed=1", "/v1/artworks", "/v1/datasets", "/metrics")
    }
    assert allowed == {
        "/v1/models/tiny/image?seed=1": [200, 403, 200],
        "/v1/artworks": [200, 403, 200],
        "/v1/datasets": [403, 200, 200],
        "/metrics": [403, 403, 200],
    }


def test_those_who_draw_see_their_renders_and_no_trainings(public: Any) -> None:
    with public.db.begin() as session:
        render, training = (jobs.submit(session, kind, {"name": "x"}).id for kind in ("render", "train"))
    generate, train = key(public, "generate"), key(public, "train")

    def seen(one: str) -> set[str]:
        return {job["id"] for job in ask(public, "/v1/jobs?limit=200", one).json()["data"]}

    assert seen(generate) & {render, training} == {render}
    assert seen(train) & {render, training} == {render, training}
    for path in ("", "/events"):
        assert ask(public, f"/v1/jobs/{render}{path}", generate).status_code == 200
        assert ask(public, f"/v1/jobs/{training}{path}", generate).status_code == 403
        assert ask(public, f"/v1/jobs/{training}{path}", train).status_code == 200
    assert ask(public, "/v1/jobs?kind=train", generate).status_code == 403
    headers = {"authorization": f"Bearer {generate}"}
    for step in ("cancel", "resume", "branch"):
        answer = httpx.post(f"{public.url}/v1/jobs/{training}/{step}", headers=headers, json={"name": "y"})
        assert answer.status_code == 403
    assert httpx.post(f"{public.url}/v1/jobs/{render}/cancel", headers=headers).json()["status"] == "canceled"


def test_a_key_answers_to_any_host_name(public: Any) -> None:
    assert ask(public, "/v1/models", key(public, "generate"), host="studio.example").status_code == 200


def test_a_revoked_key_ends_when_it_is_looked_up_again(public: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KEY_TRUSTED_SECONDS", 0.0)
    with public.db.begin() as session:
        row, secret = keys.create(session, "short", ["generate"])
    assert ask(public, "/v1/models", secret).status_code == 200
    with public.db.begin() as session:
        keys.revoke(session, row.id)
    assert ask(public, "/v1/models", secret).status_code == 401


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_trusted_after(
    public: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up, revoked = threading.Event(), threading.Event()
    read = access.Gate._read

    def slow_read(gate: access.Gate, *arguments: Any) -> Any:
        found = read(gate, *arguments)
        looked_up.set()
        assert revoked.wait(20)
        return found

    secret, admin = key(public, "generate"), key(public, "admin")
    listed = httpx.get(f"{public.url}/v1/keys", headers={"authorization": f"Bearer {admin}"}, params={"order": "desc"})
    whose = next(each["id"] for each in listed.json()["data"] if each["scopes"] == ["generate"])
    monkeypatch.setattr(access.Gate, "_read", slow_read)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(ask, public, "/v1/models", secret)
        assert looked_up.wait(20)
        gone = httpx.delete(f"{public.url}/v1/keys/{whose}", headers={"authorization": f"Bearer {admin}"})
        revoked.set()
        assert gone.status_code == 200
        assert asked.result().status_code == 200  # it was let in before
    assert ask(public, "/v1/models", secret).status_code == 401


def test_whoever_has_no_key_makes_nothing_be_written(public: Any) -> None:
    def writes() -> int:
        with public.db.read() as session:
            return int(session.execute(text("PRAGMA data_version")).scalar_one())

    before = writes()
    for number in range(3):
        answer = httpx.post(f"{public.url}/livez", json={}, headers={"idempotency-key": f"stranger-{number}"})
        assert answer.status_code == 405
    assert writes() == before


def test_who_comes_through_a_proxy_on_this_machine_is_not_taken_for_its_user(app: Any) -> None:
    answer = httpx.get(f"{app.url}/v1/models", headers={"x-forwarded-for": "203.0.113.9"})
    assert answer.status_code == 401


def test_following_a_job_ends_with_the_key(public: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (access, routes_jobs):
        monkeypatch.setattr(module, "KEY_TRUSTED_SECONDS", 0.0)
    with public.db.begin() as session:
        row, secret = keys.create(session, "short", ["train"])
        job = jobs.submit(session, "train", {"name": "followed"})
    headers = {"authorization": f"Bearer {secret}", "accept": "text/event-stream"}
    with httpx.stream("GET", f"{public.url}/v1/jobs/{job.id}/events", headers=headers, timeout=20) as stream:
        lines = stream.iter_lines()
        assert "queued" in "".join(itertools.takewhile(bool, lines))
        with public.db.begin() as session:
            keys.revoke(session, row.id)
        assert not any(lines)  # they end, though the job does not


def handshake(public: Any, *offered: str, **headers: str) -> str | None:
    """Open a websocket of the live route; the subprotocol that was chosen."""
    url = public.url.replace("http", "ws", 1) + "/v1/models/tiny/live"
    subprotocols = [Subprotocol(name) for name in offered] or None
    with connect(url, additional_headers=headers, subprotocols=subprotocols, proxy=None) as connection:
        connection.send("{}")
        assert isinstance(connection.recv(30), bytes)
        return connection.subprotocol


def test_a_websocket_needs_a_key_in_its_header_or_among_its_subprotocols(public: Any) -> None:
    secret = key(public, "generate")
    assert handshake(public, authorization=f"Bearer {secret}") is None
    assert handshake(public, "ganvas", f"key.{secret}") == "ganvas"  # and the key is never said back


@pytest.mark.parametrize("offered", [(), ("ganvas",), ("ganvas", "key."), ("ganvas", "key.gnv_wrong"), ("gnv_wrong",)])
def test_a_websocket_without_one_of_our_keys_is_401_before_it_is_open(public: Any, offered: tuple[str, ...]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        handshake(public, *offered)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == "invalid_api_key"
    assert refused.value.response.headers["x-request-id"]


def test_a_key_in_the_url_of_a_websocket_opens_nothing(public: Any) -> None:
    url = f"{public.url.replace('http', 'ws', 1)}/v1/models/tiny/live?key={key(public, 'generate')}"
    with pytest.raises(InvalidStatus), connect(url, proxy=None):
        pass


def test_a_websocket_needs_the_scope_generate(public: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        handshake(public, authorization=f"Bearer {key(public, 'train')}")
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["content-type"] == "application/problem+json"


def test_a_key_that_is_revoked_ends_what_it_opened(public: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "KEY_TRUSTED_SECONDS", 0.0)
    monkeypatch.setattr(live, "KEY_TRUSTED_SECONDS", 0.0)
    with public.db.begin() as session:
        row, secret = keys.create(session, "short", ["generate"])
    url = public.url.replace("http", "ws", 1) + "/v1/models/tiny/live"
    with connect(url, additional_headers={"authorization": f"Bearer {secret}"}, proxy=None) as connection:
        connection.send("{}")
        assert isinstance(connection.recv(30), bytes)
        with public.db.begin() as session:
            keys.revoke(session, row.id)
        connection.send('{"seed": 1}')
        assert "revoked" in json.loads(connection.recv(30))["error"]["message"]
        with pytest.raises(ConnectionClosed) as end:
            connection.recv(30)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 4401
