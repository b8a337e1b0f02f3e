"""Keys, where others can reach us: none is refused, scopes hold, and a revoked one ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api import access
from app.core import keys
from app.core.settings import Settings


@pytest.fixture(scope="module")
def public(start_app: Callable[[Settings], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An application whose settings say that others can reach it."""
    data: Path = tmp_path_factory.mktemp("public")
    with start_app(Settings(host="0.0.0.0", data=data, threads=1, max_batch=2)) as running:  # noqa: S104
        running.publish("tiny")
        yield running


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
        for path in ("/v1/models/tiny/image?seed=1", "/v1/datasets", "/metrics")
    }
    assert allowed == {
        "/v1/models/tiny/image?seed=1": [200, 403, 200],
        "/v1/datasets": [403, 200, 200],
        "/metrics": [403, 403, 200],
    }


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
