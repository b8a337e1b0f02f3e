"""The API is killed again and again while a real training tells of itself to a receiver that fails too: everything is
told, signed, and nothing that did not happen."""

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from app.core.webhooks import HOLD_SECONDS, RETRY_SECONDS, new_secret
from models.presets import preset
from tests.chaos.conftest import Figures
from tests.studio import Studio

FAILING = 0.2  # of the receiver's answers
SLOWEST_SECONDS = 0.3  # answer of the receiver: some kills meet a message under way
AGAIN_SECONDS = HOLD_SECONDS + 60  # what a killed API had in hand, and how long it takes to be there again
TOLD_WITHIN_SECONDS = HOLD_SECONDS + sum(RETRY_SECONDS[:3]) + 20
SECRET = new_secret()


class Receiver:
    """Hears messages, is slow, and fails now and then."""

    def __init__(self) -> None:
        self.accepted: dict[str, dict[str, Any]] = {}  # by webhook-id
        self.heard: list[tuple[str, float]] = []  # type, and when it came
        self._chance = random.Random(0)
        mine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with contextlib.suppress(OSError):  # who asked may have been killed
                    self.send_response(mine.hear(body, dict(self.headers.items())))
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def hear(self, body: bytes, headers: dict[str, str]) -> int:
        """The status to answer with."""
        message = Webhook(SECRET).verify(body, headers)
        self.heard.append((message["type"], time.monotonic()))
        time.sleep(self._chance.uniform(0, SLOWEST_SECONDS))
        if self._chance.random() < FAILING:
            return 500
        self.accepted[{name.lower(): value for name, value in headers.items()}["webhook-id"]] = message
        return 204

    def owed(self) -> Counter[str]:
        """How many different messages of each type but progress were accepted."""
        types = Counter(message["type"] for message in dict(self.accepted).values())
        del types["job.progress"]
        return types


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_all_of_a_training_is_told_though_the_api_is_killed_and_the_receiver_fails(
    receiver: Receiver, start_studio: Callable[..., Studio], rounds: Callable[[int, int], int], figures: Figures
) -> None:
    studio = start_studio(GANVAS_WEBHOOK_HOSTS='["127.0.0.1"]')
    kills = rounds(2, 20)
    job = start_training(studio, receiver.server.server_port)
    studio.wait_for(lambda: receiver.owed()["job.snapshot"] > 0)
    for _ in range(kills):
        kill_the_api(studio, receiver)
    studio.wait_for(lambda: answers(studio), 60)
    studio.client.post(f"/v1/jobs/{job}/cancel")
    assert studio.finish(job)["status"] == "canceled"
    happened = Counter(what for event in studio.events(job) if (what := message_type(event)))
    studio.wait_for(lambda: receiver.owed() == happened, TOLD_WITHIN_SECONDS)
    moments = [when for type_, when in receiver.heard if type_ == "job.progress"]
    gaps = [later - sooner for sooner, later in itertools.pairwise(moments)]
    assert min(gaps, default=1.0) >= 0.5
    again = len(receiver.heard) - len(receiver.accepted)
    figures.add(
        f"webhooks: {kills} kills of the API, {again} attempts that came to nothing or came twice; "
        f"all {happened.total()} messages of a training told, progress at least {min(gaps, default=1.0):.2f} s apart"
    )


def start_training(studio: Studio, port: int) -> str:
    """A training that tells of itself, until it is canceled."""
    config = preset("tiny", 32, max_minutes=600, first_snapshot_minutes=0.05, longest_snapshot_minutes=0.1)
    body = {
        "dataset": studio.upload(),
        "name": "told",
        "config": config.model_dump(mode="json"),
        "webhook": {"url": f"http://127.0.0.1:{port}/hooks", "secret": SECRET},
    }
    answer = studio.client.post("/v1/training/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def kill_the_api(studio: Studio, receiver: Receiver) -> None:
    """SIGKILL, soon after the API has begun to tell something more."""
    before = len(receiver.heard)
    studio.wait_for(lambda: len(receiver.heard) > before, AGAIN_SECONDS)
    api = studio.child("api")
    assert api is not None
    api.kill()
    api.wait()


def answers(studio: Studio) -> bool:
    """Whether the API is there again."""
    try:
        return studio.client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def message_type(event: dict[str, Any]) -> str | None:
    """The message that an event owes; None for progress, of which some is left out."""
    if event["type"] == "snapshot":
        return "job.snapshot"
    ended = {"running": "job.started", "succeeded": "job.succeeded", "failed": "job.failed", "canceled": "job.canceled"}
    return ended.get(event["data"]["status"]) if event["type"] == "status" else None
