from typing import Any

import httpx


def test_what_is_served_lean_is_documented_as_any_other_route(client: httpx.Client) -> None:
    document = client.get("/v1/openapi.json").json()
    operation = document["paths"]["/v1/models/{model}/image"]
    named = {(parameter["name"], parameter["in"]) for parameter in operation["get"]["parameters"]}

    assert set(operation) == {"get"}
    assert {("model", "path"), ("seed", "query"), ("psi", "query"), ("format", "query")} <= named
    assert "A picture is a URL" in operation["get"]["description"]


def test_a_query_that_cannot_be_read_is_answered_as_any_other(client: httpx.Client) -> None:
    lean = client.get("/v1/models/tiny/image?psi=9&sede=1")
    usual = client.get("/v1/models?limit=900")

    assert lean.status_code == usual.status_code == 422
    assert lean.headers["content-type"] == usual.headers["content-type"] == "application/problem+json"
    shown: list[dict[str, Any]] = lean.json()["errors"]
    assert {error["param"] for error in shown} == {"psi", "sede"}
    assert set(lean.json()) == set(usual.json())
