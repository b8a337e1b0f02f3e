"""A training goes on elsewhere: from its exact state, or from one of its checkpoints, under other settings."""

import secrets
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.core import jobs, saving
from app.core.records import Job
from models.presets import preset

CONFIG = preset("tiny", 32, total_kimg=50).model_dump(mode="json")
STATE = "5" * 64


@pytest.fixture
def trained(app: Any, noise: str) -> Iterator[tuple[str, str, str]]:
    """A training that saved a state and published a checkpoint: its job, its model, and the checkpoint."""
    name = f"m{secrets.token_hex(4)}"
    with app.db.begin() as session:
        job = jobs.submit(session, "train", {"dataset": noise, "name": name, "config": CONFIG})
        saving.keep_state(job, STATE, 4.0)
    claim = jobs.claim(app.db, job.id, threading.Event())
    assert claim is not None
    checkpoint = app.publish(name, seed=7, kimg=4, job_id=job.id)
    yield job.id, name, checkpoint
    claim.finish("succeeded", message="Done.")
    claim.release()


def branch(client: httpx.Client, job: str, **body: Any) -> httpx.Response:
    return client.post(f"/v1/jobs/{job}/branch", json={"name": f"b{secrets.token_hex(4)}", **body})


def accepted(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    request: dict[str, Any] = answer.json()["request"]
    return request


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


def test_a_branch_goes_on_from_the_exact_state_with_some_settings_changed(
    client: httpx.Client, trained: tuple[str, str, str], noise: str
) -> None:
    request = accepted(branch(client, trained[0], changes={"learning_rate": 0.0005, "augment": ["color"]}))
    assert (request["branch"], request["dataset"]) == (STATE, noise)
    assert "base" not in request
    assert request["config"] == CONFIG | {"learning_rate": 0.0005, "augment": ["color"]}


def test_the_state_of_a_branch_that_waits_is_kept(
    client: httpx.Client, app: Any, trained: tuple[str, str, str]
) -> None:
    job = trained[0]
    accepted(branch(client, job))
    with app.db.begin() as session:
        row = session.get_one(Job, job)
        for newer in ("6" * 64, "7" * 64):
            saving.keep_state(row, newer, 8.0)
        assert STATE not in {row.state_sha256, row.previous_state_sha256}
        assert saving.state_in_use(session, STATE)


def test_a_branch_has_a_budget_and_seed_of_its_own(client: httpx.Client, trained: tuple[str, str, str]) -> None:
    config = accepted(branch(client, trained[0], budget={"minutes": 3}, seed=11))["config"]
    assert (config["total_kimg"], config["max_minutes"], config["seed"]) == (None, 3, 11)


def test_a_branch_from_a_checkpoint_may_change_the_networks(
    client: httpx.Client, trained: tuple[str, str, str]
) -> None:
    job, model, checkpoint = trained
    changes = {"network": {"upsampling": "transposed"}}
    request = accepted(branch(client, job, checkpoint=checkpoint[:12], changes=changes))
    assert request["base"] == f"{model}@{checkpoint}"
    assert "branch" not in request
    assert request["config"]["network"] == CONFIG["network"] | {"upsampling": "transposed"}
    error = refusal(branch(client, job, changes=changes), 422, "branch_keeps_network")
    assert "checkpoint" in error["message"]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"learning_rat": 1}, "unknown_field", "changes.learning_rat"),
        ({"network": {"depth": 1}}, "unknown_field", "changes.network.depth"),
        ({"learning_rate": 5}, "invalid_request", "changes.learning_rate"),
        ({"network": {"resolution": 64}}, "invalid_request", "changes.network"),
    ],
)
def test_changes_that_are_no_settings_are_refused_by_name(
    client: httpx.Client, trained: tuple[str, str, str], changes: dict[str, Any], code: str, param: str
) -> None:
    assert refusal(branch(client, trained[0], changes=changes), 422, code)["param"] == param


def test_a_checkpoint_of_another_job_is_not_found(
    client: httpx.Client, app: Any, trained: tuple[str, str, str]
) -> None:
    refusal(branch(client, trained[0], checkpoint="0" * 12), 404, "checkpoint_not_found")
    other = app.publish("stranger", seed=9)
    error = refusal(branch(client, trained[0], checkpoint=other[:12]), 404, "checkpoint_not_found")
    assert error["param"] == "checkpoint"


def test_a_job_without_a_state_and_one_that_is_no_training_cannot_be_branched(
    client: httpx.Client, app: Any, noise: str
) -> None:
    with app.db.begin() as session:
        bare = jobs.submit(session, "train", {"dataset": noise, "name": secrets.token_hex(4), "config": CONFIG}).id
        preparing = jobs.submit(session, "prepare", {"dataset": "ds_gone"}).id
    assert "first snapshot" in refusal(branch(client, bare), 409, "job_state_conflict")["message"]
    refusal(branch(client, preparing), 409, "job_state_conflict")
    refusal(branch(client, "job_nothing"), 404, "job_not_found")
    client.post(f"/v1/jobs/{bare}/cancel")
    client.post(f"/v1/jobs/{preparing}/cancel")


def test_a_branch_needs_a_name_that_is_free(client: httpx.Client, trained: tuple[str, str, str]) -> None:
    refusal(branch(client, trained[0], name=trained[1]), 409, "model_exists")
    refusal(branch(client, trained[0], name="a b"), 422, "model_name_invalid")
