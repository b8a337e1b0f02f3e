"""What every answer tells browsers."""

import socket

import httpx
import pytest

from app.api.headers import complete

CLOSED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("path", ["/livez", "/v1/models", "/v1/models/nobody", "/nowhere", "/v1/openapi.json"])
def test_answers_run_nothing_load_nothing_and_are_framed_by_nobody(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert {name: answer.headers.get_list(name) for name in CLOSED} == {name: [said] for name, said in CLOSED.items()}


def test_a_refusal_by_name_has_them_too(client: httpx.Client) -> None:
    answer = client.get("/v1/models", headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert CLOSED.items() <= dict(answer.headers).items()


def test_what_is_no_http_is_answered_with_them_too(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(b"NO SUCH THING\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    for name, said in CLOSED.items():
        assert f"\r\n{name}: {said}\r\n" in answer


def test_a_picture_may_stand_in_the_page_of_any_app(client: httpx.Client) -> None:
    answer = client.get("/v1/models/tiny/image?seed=1")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_what_a_route_says_itself_stays() -> None:
    policy = (b"content-security-policy", b"default-src 'self'")
    headers = [policy, (b"content-type", b"text/html")]
    complete(headers)
    assert [pair for pair in headers if pair[0] == policy[0]] == [policy]
