"""What watches the service is told the truth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from app.core.settings import Settings


def test_a_healthy_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "database": "ok", "storage": "ok", "redis": "ok"}


def test_requests_are_counted_by_their_route_not_their_path(client: httpx.Client) -> None:
    client.get("/v1/models/tiny/image?seed=1")
    client.get("/v1/models/nobody/image?seed=1")
    client.get("/no/such/path")
    shown = client.get("/metrics").text
    assert 'ganvas_http_requests_total{method="GET",route="/v1/models/{model}/image",status="200"}' in shown
    assert 'ganvas_http_requests_total{method="GET",route="/v1/models/{model}/image",status="404"}' in shown
    assert 'ganvas_http_requests_total{method="GET",route="",status="404"}' in shown
    assert "/no/such/path" not in shown
    assert 'ganvas_http_request_seconds_bucket{le="1.0",route="/v1/models/{model}/image"}' in shown


def test_without_redis_the_service_is_degraded_and_still_takes_work(
    start_app: Callable[[Settings], Any], tmp_path: Path
) -> None:
    settings = Settings(data=tmp_path, redis_url=f"unix://{tmp_path}/nobody.sock", max_batch=2)
    with start_app(settings) as running, running.client() as client:
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["redis"]) == (200, "degraded", "down")
        answer = client.post("/v1/datasets", data={"name": "x"}, files={"files": ("a.png", b"1")})
        assert answer.status_code == 201
        job = client.get(f"/v1/jobs/{answer.json()['job']}").json()
        assert (job["status"], job["position"]) == ("queued", 0)


def test_a_storage_that_takes_nothing_is_not_ready(start_app: Callable[[Settings], Any], tmp_path: Path) -> None:
    with start_app(Settings(data=tmp_path, max_batch=2)) as running, running.client() as client:
        assert client.get("/readyz").status_code == 200
        blobs = tmp_path / "blobs"
        blobs.rename(tmp_path / "moved")
        blobs.write_bytes(b"")  # a file where the folder was: nothing can be written, root or not
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"]
        assert str(tmp_path) not in answer.text
        assert client.get("/livez").status_code == 200
