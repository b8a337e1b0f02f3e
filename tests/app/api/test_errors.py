"""Every error has the one shape, the framework's own included, and gives nothing away."""

import json
from typing import Any

import httpx
import pytest

from app.api.errors import answer
from app.core.errors import (
    Busy,
    Conflict,
    GanvasError,
    InvalidRequest,
    JobStateConflict,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    TooLarge,
    TrainingDiverged,
    Unavailable,
)
from app.core.records import Dataset, new_id


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    body: dict[str, Any] = response.json()
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "instance", "error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["status"], body["error"]["code"]) == (status, code)
    assert body["detail"] == body["error"]["message"]
    return body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing/here", 404, "route_not_found"),
        ("DELETE", "/v1/images/generations", 405, "method_not_allowed"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/v1/models/nobody/image?seed=1", 404, "model_not_found"),
        ("GET", "/v1/models/tiny@ffffffffffff/image?seed=1", 404, "checkpoint_not_found"),
        ("GET", "/v1/models/tiny@xyz/image?seed=1", 422, "checkpoint_invalid"),
        ("GET", "/v1/datasets/ds_nothing", 404, "dataset_not_found"),
        ("GET", "/v1/jobs/job_nothing", 404, "job_not_found"),
        ("GET", "/v1/jobs/job_nothing/events", 404, "job_not_found"),
        ("POST", "/v1/jobs/job_nothing/cancel", 404, "job_not_found"),
        ("GET", "/v1/jobs?limit=1000", 422, "invalid_request"),
        ("GET", "/v1/jobs?after=job_nothing", 422, "cursor_invalid"),
        ("GET", "/v1/jobs?status=lost", 422, "invalid_request"),
        ("GET", "/v1/models/tiny/image?seed=-7", 422, "invalid_request"),
        ("GET", "/v1/models/tiny/image?sead=7", 422, "unknown_field"),
    ],
)
def test_a_refusal_has_the_one_shape(client: httpx.Client, method: str, path: str, status: int, code: str) -> None:
    problem(client.request(method, path), status, code)


def test_a_405_says_what_is_allowed(client: httpx.Client) -> None:
    assert client.delete("/livez").headers["allow"] == "GET"


def test_an_unknown_field_is_refused_by_name(client: httpx.Client) -> None:
    body = {"dataset": "ds_1", "name": "a", "budgit": {}}
    shown = problem(client.post("/v1/training/jobs", json=body), 422, "unknown_field")
    assert shown["error"]["param"] == "budgit"


def test_all_wrong_fields_are_told_at_once(client: httpx.Client) -> None:
    shown = problem(client.post("/v1/images/generations", json={"n": 0, "truncation_psi": 9}), 422, "invalid_request")
    assert [item["param"] for item in shown["errors"]] == ["n", "truncation_psi"]
    assert "It is 9" in shown["errors"][1]["message"]


def test_a_body_that_is_not_json_is_told_where_it_breaks(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    shown = problem(client.post("/v1/images/generations", content='{"n": }', headers=headers), 422, "json_invalid")
    assert "character 6" in shown["detail"]


def test_json_without_its_content_type_is_told_to_name_it(client: httpx.Client) -> None:
    response = client.post("/v1/images/generations", content='{"n": 1}', headers={"content-type": "text/plain"})
    assert "Content-Type: application/json" in problem(response, 422, "json_expected")["detail"]


def test_what_nobody_foresaw_is_500_without_a_trace_or_a_path(app: Any, client: httpx.Client) -> None:
    damaged = app.storage.put(b"this is no manifest")
    dataset = Dataset(id=new_id("ds"), name="x", request={}, source_sha256=damaged, manifest_sha256=damaged)
    with app.db.begin() as session:
        session.add(dataset)
    response = client.get(f"/v1/datasets/{dataset.id}/items")
    problem(response, 500, "internal_error")
    assert str(app.settings.data) not in response.text
    assert "Traceback" not in response.text
    assert "manifest" not in response.text


@pytest.mark.parametrize(
    ("error", "status", "type_", "headers"),
    [
        (InvalidRequest("m"), 422, "invalid_request_error", {}),
        (NotAuthenticated("m"), 401, "authentication_error", {"www-authenticate": "Bearer"}),
        (NotAllowed("m"), 403, "permission_error", {}),
        (NotFound("m"), 404, "invalid_request_error", {}),
        (Conflict("m"), 409, "invalid_request_error", {"x-should-retry": "false"}),
        (JobStateConflict("m"), 409, "invalid_request_error", {"x-should-retry": "false"}),
        (TooLarge("m"), 413, "invalid_request_error", {}),
        (Busy("m", retry_after=2.2), 429, "rate_limit_error", {"retry-after": "3"}),
        (Busy("m", retry_after=0.0), 429, "rate_limit_error", {"retry-after": "1"}),
        (Unavailable("m"), 503, "server_error", {"retry-after": "5"}),
        (TrainingDiverged("m"), 500, "server_error", {}),
        (GanvasError("m"), 500, "server_error", {}),
    ],
)
def test_each_of_our_errors_has_its_status_type_and_headers(
    error: GanvasError, status: int, type_: str, headers: dict[str, str]
) -> None:
    response = answer("/v1/x", error)
    assert response.status_code == status
    assert json.loads(response.body)["error"]["type"] == type_
    assert headers.items() <= dict(response.headers).items()


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/images/variations", "/v1/renders"])
@pytest.mark.parametrize("body", [b'{"model": "\xff"}', b"\xa5", b"", b"[" * 100_000, b'{"n": 1' + b"0" * 5000 + b"}"])
def test_what_is_no_json_is_refused_alike_by_every_route(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] in {"json_invalid", "json_expected"}
