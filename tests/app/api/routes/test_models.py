"""Models are shown, promoted, downloaded and deleted over HTTP."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.core import jobs
from app.core.errors import NotFound


def test_a_model_shows_its_weights_and_what_it_is(client: httpx.Client, app: Any) -> None:
    first, second = (app.publish("shown", seed=kimg, kimg=kimg) for kimg in (1, 2))
    shown = client.get("/v1/models/shown").json()
    assert (shown["id"], shown["object"], shown["checkpoint"]) == ("shown", "model", second)
    assert [item["checkpoint"] for item in shown["checkpoints"]] == [first, second]
    assert (shown["resolution"], shown["z_dim"], shown["num_ws"], shown["metrics"]) == (32, 16, 4, {"swd": 12.5})
    pinned = client.get(f"/v1/models/shown%40{first[:12]}").json()
    assert (pinned["id"], pinned["checkpoint"]) == (f"shown@{first[:12]}", first)


def test_promoting_changes_what_the_bare_name_means_at_once(client: httpx.Client, app: Any) -> None:
    first, second = (app.publish("chosen", seed=kimg, kimg=kimg) for kimg in (1, 2))
    before = client.get("/v1/models/chosen/image?seed=1").headers["etag"]
    answer = client.post("/v1/models/chosen/promote", json={"checkpoint": first[:12]})
    assert answer.json()["checkpoint"] == first
    after = client.get("/v1/models/chosen/image?seed=1").headers["etag"]
    assert before != after == client.get(f"/v1/models/chosen@{first}/image?seed=1").headers["etag"]
    missing = client.post("/v1/models/chosen/promote", json={"checkpoint": "f" * 12})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "checkpoint_not_found")
    assert client.post("/v1/models/chosen/promote", json={"checkpoint": second[:5]}).status_code == 422


def test_the_weights_come_down_as_they_are_stored(client: httpx.Client, app: Any) -> None:
    sha256 = app.publish("carried", seed=8)
    answer = client.get("/v1/models/carried/download")
    assert answer.content == app.storage.get(sha256)
    assert f'filename="carried-{sha256[:12]}.safetensors"' in answer.headers["content-disposition"]


def test_a_deleted_model_is_gone_with_the_weights_that_nobody_else_has(client: httpx.Client, app: Any) -> None:
    shared, own = app.publish("gone", seed=20, kimg=1), app.publish("gone", seed=21, kimg=2)
    assert app.publish("stays", seed=20, kimg=1) == shared
    assert client.get("/v1/models/gone/image?seed=1").status_code == 200
    assert client.delete("/v1/models/gone").json() == {"id": "gone", "object": "model", "deleted": True}
    assert client.get("/v1/models/gone").status_code == 404
    assert client.get("/v1/models/gone/image?seed=1").status_code == 404
    with pytest.raises(NotFound):
        app.storage.path(own)
    assert app.storage.path(shared).exists()
    assert client.get("/v1/models/stays/image?seed=1").status_code == 200


def test_a_model_in_training_is_not_deleted(client: httpx.Client, app: Any) -> None:
    with app.db.begin() as session:
        job = jobs.submit(session, "train", {"name": "busy"}).id
    app.publish("busy", seed=30, job_id=job)
    answer = client.delete("/v1/models/busy")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_in_use")
    client.post(f"/v1/jobs/{job}/cancel")
    assert client.delete("/v1/models/busy").status_code == 200


def test_a_single_checkpoint_is_not_deleted(client: httpx.Client, app: Any) -> None:
    sha256 = app.publish("kept", seed=31)
    assert client.delete(f"/v1/models/kept@{sha256[:12]}").status_code == 422
    assert client.get("/v1/models/kept").status_code == 200


def test_weights_are_loaded_ahead_and_unloaded_on_request(client: httpx.Client, app: Any) -> None:
    first, second = (app.publish("ready", seed=40 + kimg, kimg=kimg) for kimg in (1, 2))
    loaded = client.post("/v1/models/ready/load").json()
    assert (loaded["id"], loaded["object"], loaded["checkpoint"]) == ("ready", "model.memory", second)
    assert loaded["loaded"] is True
    assert loaded["bytes"] > 10_000
    assert held(client, second) == loaded["bytes"]
    assert held(client, first) is None

    pinned = client.post(f"/v1/models/ready@{first[:12]}/load").json()
    assert (pinned["checkpoint"], pinned["loaded"]) == (first, True)
    assert client.post("/v1/models/ready/load").json()["seconds"] < pinned["seconds"] + 1

    unloaded = client.post("/v1/models/ready/unload")
    assert (unloaded.status_code, unloaded.json()["loaded"], unloaded.json()["bytes"]) == (200, False, 0)
    assert held(client, second) is None
    assert held(client, first) is not None
    again = client.post("/v1/models/ready/unload")
    assert (again.status_code, again.json()["loaded"]) == (200, False)
    assert client.get("/v1/models/ready/image?seed=1").status_code == 200  # it is read again


def held(client: httpx.Client, sha256: str) -> float | None:
    """What metrics say that a checkpoint takes, bytes."""
    start = f'ganvas_loaded_bytes{{model="{sha256[:12]}"}} '
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(start)]
    return float(lines[0].removeprefix(start)) if lines else None


@pytest.mark.parametrize("what", ["load", "unload"])
def test_what_does_not_exist_is_neither_loaded_nor_unloaded(client: httpx.Client, what: str) -> None:
    answer = client.post(f"/v1/models/nobody/{what}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    answer = client.post(f"/v1/models/tiny@{'f' * 12}/{what}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "checkpoint_not_found")
    assert f"/v1/models/{{model}}/{what}" in client.get("/v1/openapi.json").json()["paths"]


def test_weights_that_cannot_be_read_are_neither_loaded_nor_promoted(client: httpx.Client, app: Any) -> None:
    first, second = (app.publish("torn", seed=50 + kimg, kimg=kimg) for kimg in (1, 2))
    client.post("/v1/models/torn/promote", json={"checkpoint": first[:12]})
    whole = app.storage.get(second)
    app.storage.path(second).write_bytes(whole[:-4])
    for answer in (
        client.post(f"/v1/models/torn@{second[:12]}/load"),
        client.post("/v1/models/torn/promote", json={"checkpoint": second[:12]}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "blob_damaged")
    assert client.get("/v1/models/torn").json()["checkpoint"] == first


def test_a_deleted_models_weights_leave_the_memory(client: httpx.Client, app: Any) -> None:
    sha256 = app.publish("leaving", seed=60)
    client.post("/v1/models/leaving/load")
    assert held(client, sha256) is not None
    client.delete("/v1/models/leaving")
    assert held(client, sha256) is None


def test_nobody_who_draws_fails_or_waits_for_a_promotion(client: httpx.Client, app: Any) -> None:
    shas = [app.publish("steady", seed=70 + kimg, kimg=kimg, width=32) for kimg in range(4)]
    client.post("/v1/models/steady/promote", json={"checkpoint": shas[0]})
    stop, seeds = threading.Event(), itertools.count()

    def draw() -> list[tuple[int, float, str]]:
        answers = []
        with app.client() as own:
            while not stop.is_set():
                started = time.perf_counter()
                answer = own.get(f"/v1/models/steady/image?seed={next(seeds)}")
                answers.append((answer.status_code, time.perf_counter() - started, answer.headers["x-ganvas-recipe"]))
        return answers

    loads = []
    with ThreadPoolExecutor(3) as clients:
        drawing = [clients.submit(draw) for _ in range(3)]
        try:
            for sha256 in shas[1:]:
                time.sleep(0.2)
                started = time.perf_counter()
                assert client.post("/v1/models/steady/promote", json={"checkpoint": sha256}).status_code == 200
                loads.append(time.perf_counter() - started)
            time.sleep(0.2)
        finally:
            stop.set()
    answers = [answer for task in drawing for answer in task.result()]

    assert {status for status, _, _ in answers} == {200}
    assert all(any(sha256 in recipe for _, _, recipe in answers) for sha256 in shas)
    assert max(seconds for _, seconds, _ in answers) < max(loads) + 1
