"""Models are shown, promoted, downloaded and deleted over HTTP."""

from typing import Any

import httpx
import pytest

from app.core import jobs
from app.core.errors import NotFound


def test_a_model_shows_its_weights_and_what_it_is(client: httpx.Client, app: Any) -> None:
    first, second = (app.publish("grown", seed=kimg, kimg=kimg) for kimg in (1, 2))
    shown = client.get("/v1/models/grown").json()
    assert (shown["id"], shown["object"], shown["checkpoint"]) == ("grown", "model", second)
    assert [item["checkpoint"] for item in shown["checkpoints"]] == [first, second]
    assert (shown["resolution"], shown["z_dim"], shown["num_ws"], shown["metrics"]) == (32, 16, 4, {"swd": 12.5})
    pinned = client.get(f"/v1/models/grown%40{first[:12]}").json()
    assert (pinned["id"], pinned["checkpoint"]) == (f"grown@{first[:12]}", first)


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
