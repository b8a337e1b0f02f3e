"""Who asks for a training may be told of it, signed with a secret that is shown once."""

import base64
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from app.core import jobs
from models.presets import preset

Heard = list[tuple[dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Heard]]:
    """A receiver on a host that the operator listed: its URL, and the headers and bodies that came."""
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append((dict(self.headers.items()), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://localhost:{server.server_port}/hooks", heard
        server.shutdown()


def start(client: httpx.Client, dataset: str, name: str, webhook: Any) -> httpx.Response:
    config = preset("tiny", 32, total_kimg=1).model_dump(mode="json")
    return client.post(
        "/v1/training/jobs", json={"dataset": dataset, "name": name, "config": config, "webhook": webhook}
    )


def wait_for(heard: Heard, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(heard) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run(app: Any, job_id: str) -> None:
    """Do the worker's part of a training."""
    claim = jobs.claim(app.db, job_id, threading.Event())
    assert claim is not None
    claim.report("snapshot", {"kimg": 1.0, "checkpoint": "ab" * 32}, progress=0.9)
    claim.finish("succeeded", message="Done.", result={"model": "heard"})
    claim.leave()


def test_a_training_tells_of_itself_at_the_url_it_was_given(
    app: Any, client: httpx.Client, silent: str, receiver: tuple[str, Heard]
) -> None:
    url, heard = receiver
    answer = start(client, silent, "heard", url)
    assert answer.status_code == 202, answer.text
    job, webhook = answer.json(), answer.json()["webhook"]
    assert webhook["url"] == url
    run(app, job["id"])
    wait_for(heard, 3)
    messages = [Webhook(webhook["secret"]).verify(body, headers) for headers, body in heard]
    assert [message["type"] for message in messages] == ["job.started", "job.snapshot", "job.succeeded"]
    assert messages[1]["event"]["checkpoint"] == "ab" * 32
    assert messages[2]["data"] == client.get(f"/v1/jobs/{job['id']}").json()


def test_a_secret_is_shown_once_and_written_nowhere_else(
    app: Any, client: httpx.Client, silent: str, receiver: tuple[str, Heard], capfd: pytest.CaptureFixture[str]
) -> None:
    url, heard = receiver
    own = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ....").decode()
    job = start(client, silent, "hush", {"url": url, "secret": own}).json()
    assert job["webhook"] == {"url": url, "secret": own}
    run(app, job["id"])
    wait_for(heard, 3)
    assert all(Webhook(own).verify(body, headers) for headers, body in heard)
    seen = [client.get(f"/v1/jobs/{job['id']}"), client.get("/v1/jobs"), client.get(f"/v1/jobs/{job['id']}/events")]
    shown = "".join(answer.text for answer in seen) + "".join(body.decode() for _, body in heard)
    assert own[6:] not in shown
    output = capfd.readouterr()
    assert own[6:] not in output.out + output.err


def test_a_branch_may_have_a_webhook_of_its_own(
    app: Any, client: httpx.Client, silent: str, receiver: tuple[str, Heard]
) -> None:
    url, heard = receiver
    trunk = start(client, silent, "trunk", None).json()
    assert trunk["webhook"] is None
    claim = jobs.claim(app.db, trunk["id"], threading.Event())
    assert claim is not None
    app.publish("trunk", job_id=trunk["id"])
    claim.finish("canceled", message="Stopped.")
    claim.leave()
    checkpoint = client.get("/v1/models/trunk").json()["checkpoint"]
    wish = {"name": "twig", "checkpoint": checkpoint, "webhook": {"url": url}}
    answer = client.post(f"/v1/jobs/{trunk['id']}/branch", json=wish)
    assert answer.status_code == 202, answer.text
    client.post(f"/v1/jobs/{answer.json()['id']}/cancel")
    wait_for(heard, 1)
    headers, body = heard[0]
    message = Webhook(answer.json()["webhook"]["secret"]).verify(body, headers)
    assert (message["type"], message["data"]["id"]) == ("job.canceled", answer.json()["id"])


@pytest.mark.parametrize(
    "webhook",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://0x7f000001/",
        "https://user:password@example.com/",
        "https://example.com:6379/",
        "file:///etc/passwd",
        "",
        {"url": "http://10.0.0.1/"},
        {"url": "https://example.com/", "secret": "whsec_" + "a" * 33},
    ],
)
def test_a_url_that_may_lead_inside_and_a_secret_that_cannot_sign_are_refused(
    client: httpx.Client, silent: str, webhook: Any
) -> None:
    before = client.get("/v1/jobs", params={"limit": 1}).json()["first_id"]
    answer = start(client, silent, "refused", webhook)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "webhook_refused"
    assert answer.json()["error"]["param"].startswith("webhook")
    assert client.get("/v1/jobs", params={"limit": 1}).json()["first_id"] == before


@pytest.mark.parametrize(
    ("webhook", "param"),
    [
        (5, "webhook"),
        ([], "webhook"),
        ({}, "webhook.url"),
        ({"url": None}, "webhook.url"),
        ("https://a.example/" + "a" * 2000, "webhook.url"),
        ({"url": "https://a.example", "secret": "hush"}, "webhook.secret"),
        ({"url": "https://a.example", "x": 1}, "webhook.x"),
    ],
)
def test_a_webhook_of_another_shape_is_refused(client: httpx.Client, silent: str, webhook: Any, param: str) -> None:
    answer = start(client, silent, "misshapen", webhook)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_attempts_are_counted(client: httpx.Client) -> None:
    assert 'ganvas_webhooks_total{outcome="told"}' in client.get("/metrics").text
