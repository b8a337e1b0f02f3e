"""The OpenAPI document names every answer of every route, and holds together."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api.documenting import METHODS, PROBLEMS
from app.api.errors import ANSWERS, FRAMEWORK_CODES, PROBLEM_TYPE
from app.api.schemas.problems import Problem


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    told: dict[str, Any] = client.get("/v1/openapi.json").json()
    return told


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of each route."""
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            yield path, method, item[method]


def followed(document: dict[str, Any], reference: str) -> Any:
    """What a reference leads to."""
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_reference_leads_somewhere_and_none_leads_past_the_components(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '([^']+)'", str(document)))
    assert len(references) > 50
    for reference in references:
        assert reference.startswith("#/components/")
        assert followed(document, reference)


def test_every_status_that_an_error_has_is_described(document: dict[str, Any]) -> None:
    statuses = {answer.status for answer in ANSWERS.values()} | FRAMEWORK_CODES.keys()
    assert statuses - {405} <= PROBLEMS.keys()  # what is not in the document has no place to say 405
    for status in PROBLEMS:
        problem = document["components"]["responses"][f"Problem{status}"]
        assert list(problem["content"]) == [PROBLEM_TYPE]


def test_every_route_says_what_it_answers_and_what_may_go_wrong(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        where, responses = f"{method} {path}", operation["responses"]
        right = [status for status in responses if status < "300"]
        assert len(right) == 1, where
        assert responses[right[0]].get("content"), where
        assert "x-request-id" in responses[right[0]]["headers"], where
        assert {"400", "413", "431", "500"} <= responses.keys(), where
        assert ("401" in responses) is (operation.get("security") != []), where
        assert "{" not in path or "404" in responses, where
        assert "requestBody" not in operation or {"404", "422", "507"} <= responses.keys(), where


def test_what_is_made_has_a_location_and_can_be_asked_for_under_a_key(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        for status in {"201", "202"} & operation["responses"].keys():
            assert "location" in operation["responses"][status]["headers"], path
            assert method == "post"
            assert "idempotency-key" in [each["name"] for each in operation["parameters"]], path


def test_what_needs_no_key_says_so_and_all_else_names_the_key(document: dict[str, Any]) -> None:
    assert document["security"] == [{"key": []}, {}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    open_ = {path for path, _, operation in operations(document) if operation.get("security") == []}
    assert open_ == {"/livez", "/readyz"}


@pytest.mark.parametrize("asked", [{"url": "/v1/models/nobody"}, {"url": "/v1/jobs", "params": {"limit": "-1"}}])
def test_a_problem_has_what_is_described_and_nothing_else(client: httpx.Client, asked: dict[str, Any]) -> None:
    answer = client.get(**asked)
    assert Problem.model_validate(answer.json()).status == answer.status_code


def test_405_names_every_method_of_the_path(client: httpx.Client) -> None:
    answer = client.put("/v1/artworks/nothing")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, PATCH")
    assert client.put("/v1/models/tiny/promote").headers["allow"] == "POST"
