"""Jobs are shown, followed, canceled and resumed over HTTP."""

import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.core import jobs


@pytest.fixture
def job(app: Any) -> str:
    """A queued training."""
    with app.db.begin() as session:
        return jobs.submit(session, "train", {"name": secrets.token_hex(4)}).id


@pytest.fixture
def claim(app: Any, job: str) -> Iterator[jobs.Claim]:
    """A worker's hold on it."""
    held = jobs.claim(app.db, job, threading.Event())
    assert held is not None
    yield held
    held.release()


def stream(client: httpx.Client, job: str, **headers: str) -> Iterator[dict[str, str]]:
    """Events of a stream as they come: id, event and data of each."""
    headers["accept"] = "text/event-stream"
    with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in answer.iter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                yield event
                event = {}


def test_a_job_is_listed_by_kind_and_status(client: httpx.Client, claim: jobs.Claim) -> None:
    def listed(**wanted: str) -> set[str]:
        return {entry["id"] for entry in client.get("/v1/jobs", params={"limit": "200", **wanted}).json()["data"]}

    assert claim.job_id in listed(kind="train", status="running")
    assert claim.job_id in listed()
    assert claim.job_id not in listed(kind="prepare")
    assert claim.job_id not in listed(status="queued")


def test_a_running_job_shows_its_progress(client: httpx.Client, claim: jobs.Claim) -> None:
    claim.report("tick", {"kimg": 1.5}, progress=0.25, message="1.5 kimg.", eta_seconds=90.0)
    shown = client.get(f"/v1/jobs/{claim.job_id}").json()
    assert (shown["status"], shown["progress"], shown["message"]) == ("running", 0.25, "1.5 kimg.")
    assert (shown["eta_seconds"], shown["position"], shown["attempts"]) == (90.0, None, 1)
    assert shown["started_at"] is not None


def test_events_are_listed_in_order_and_paged(client: httpx.Client, claim: jobs.Claim) -> None:
    for kimg in range(3):
        claim.report("tick", {"kimg": kimg})
    path = f"/v1/jobs/{claim.job_id}/events"
    whole = client.get(path).json()
    assert [event["type"] for event in whole["data"]] == ["status", "status", "tick", "tick", "tick"]
    assert not whole["has_more"]
    first = client.get(path, params={"limit": 3}).json()
    assert first["has_more"]
    rest = client.get(path, params={"after": first["last_id"]}).json()
    assert first["data"] + rest["data"] == whole["data"]


def test_a_follower_hears_each_event_as_it_comes_and_the_stream_ends_with_the_job(
    client: httpx.Client, claim: jobs.Claim
) -> None:
    heard = stream(client, claim.job_id)
    assert [json.loads(next(heard)["data"])["data"]["status"] for _ in range(2)] == ["queued", "running"]
    claim.report("tick", {"kimg": 0.5})
    tick = next(heard)
    assert (tick["event"], json.loads(tick["data"])["data"]) == ("tick", {"kimg": 0.5})
    claim.finish("succeeded", message="Done.")
    last = next(heard)
    assert (last["event"], json.loads(last["data"])["data"]["status"]) == ("status", "succeeded")
    assert list(heard) == []


def test_a_follower_who_was_away_gets_what_it_missed_and_nothing_twice(client: httpx.Client, claim: jobs.Claim) -> None:
    for kimg in range(4):
        claim.report("tick", {"kimg": kimg})
    claim.finish("canceled", message="Canceled.")
    whole = list(stream(client, claim.job_id))
    assert len(whole) == 7
    assert list(stream(client, claim.job_id, **{"last-event-id": whole[3]["id"]})) == whole[4:]


def test_a_queued_job_is_canceled_at_once_and_a_running_one_asked_to_stop(
    client: httpx.Client, app: Any, job: str
) -> None:
    assert client.post(f"/v1/jobs/{job}/cancel").json()["status"] == "canceled"
    with app.db.begin() as session:
        other = jobs.submit(session, "train", {"name": "other"}).id
    held = jobs.claim(app.db, other, threading.Event())
    assert held is not None
    asked = client.post(f"/v1/jobs/{other}/cancel").json()
    assert (asked["status"], asked["message"]) == ("running", "Stopping at the next step.")
    held.finish("succeeded", message="Done.")
    held.release()
    refused = client.post(f"/v1/jobs/{other}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "job_state_conflict")


def test_a_canceled_job_is_resumed_and_any_other_is_not(client: httpx.Client, job: str) -> None:
    assert client.post(f"/v1/jobs/{job}/resume").status_code == 409
    client.post(f"/v1/jobs/{job}/cancel")
    resumed = client.post(f"/v1/jobs/{job}/resume").json()
    assert (resumed["status"], resumed["finished_at"]) == ("queued", None)


def test_sample_sheets_are_listed_by_kimg_and_fetched(client: httpx.Client, app: Any, job: str) -> None:
    weights = [app.publish("sheets", seed=kimg, kimg=kimg, job_id=job, sheet=b"sheet %d" % kimg) for kimg in (12, 3)]
    shown = client.get(f"/v1/jobs/{job}/samples").json()["data"]
    assert [(entry["kimg"], entry["checkpoint"]) for entry in shown] == [(3, weights[1]), (12, weights[0])]
    assert shown[1]["url"] == f"/v1/jobs/{job}/samples/12.0.png"
    sheet = client.get(shown[1]["url"])
    assert (sheet.content, sheet.headers["content-type"]) == (b"sheet 12", "image/png")
    missing = client.get(f"/v1/jobs/{job}/samples/7.0.png")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "sample_not_found")
