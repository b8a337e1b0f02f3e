"""The application is built by a call, opens what it needs when it starts, and closes it when it stops."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from rq import Queue
from rq.serializers import JSONSerializer

from app.core import jobs
from app.core.queue import connect
from app.core.settings import Settings
from app.main import create_app


def test_building_an_application_opens_nothing(tmp_path: Path) -> None:
    create_app(Settings(data=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_job_that_nobody_was_told_of_is_dispatched_within_seconds(app: Any) -> None:
    with app.db.begin() as session:
        job = jobs.submit(session, "train", {"name": "unheard"}).id
    with connect(app.settings.redis) as connection:
        queue = Queue("train", connection=connection, serializer=JSONSerializer)
        deadline = time.monotonic() + 15
        while f"{job}-1" not in queue.job_ids:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_stopped_application_leaves_no_thread_behind(start_app: Callable[[Settings], Any], tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with start_app(Settings(data=tmp_path, threads=1, max_batch=2)) as running, running.client() as client:
        running.publish("tiny")
        assert client.get("/v1/models/tiny/image?seed=1").status_code == 200
        during = {thread.name for thread in set(threading.enumerate()) - before}
        assert "paint_0" in during
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in left if name == "device" or name.startswith(("finish", "load", "tidy"))}


def test_the_default_model_is_in_memory_before_anybody_asks_for_it(
    start_app: Callable[[Settings], Any], tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, threads=1, max_batch=2)
    with start_app(settings) as running:
        running.publish("older")
        sha256 = running.publish("newer", seed=1)
    with start_app(settings) as running, running.client() as client:
        deadline = time.monotonic() + 15
        while f'ganvas_loaded_bytes{{model="{sha256[:12]}"}}' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "ganvas_loaded_models 1.0" in client.get("/metrics").text


def test_every_route_and_field_is_documented(client: httpx.Client) -> None:
    schema = client.get("/v1/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path}"
            for parameter in operation.get("parameters", []):
                if parameter["in"] != "path":
                    assert parameter.get("description") or parameter["schema"].get("description"), (path, parameter)
    ours = {name: body for name, body in schema["components"]["schemas"].items() if "ValidationError" not in name}
    for name, body in ours.items():
        for field, shape in body.get("properties", {}).items():
            assert shape.get("description"), f"{name}.{field}"
