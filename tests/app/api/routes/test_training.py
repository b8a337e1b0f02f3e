"""A training is accepted with its whole configuration, or refused with what would do."""

from typing import Any

import httpx
import pytest

from models.presets import preset


def start(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/training/jobs", json=body)


def test_a_training_is_accepted_as_a_queued_job_with_every_default_written_out(
    client: httpx.Client, noise: str
) -> None:
    answer = start(client, dataset=noise, name="moths")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["status"]) == ("train", "queued")
    assert isinstance(job["position"], int)
    expected = preset("tiny", 32).model_dump(mode="json")
    assert job["request"] == {"dataset": noise, "name": "moths", "config": expected}


def test_budget_and_seed_go_into_the_preset(client: httpx.Client, noise: str) -> None:
    answer = start(client, dataset=noise, name="a1", preset="classic", budget={"kimg": 5}, seed=7)
    config = answer.json()["request"]["config"]
    assert (config["preset"], config["total_kimg"], config["max_minutes"], config["seed"]) == ("classic", 5, None, 7)


def test_a_whole_configuration_is_taken_as_it_is_but_for_budget_and_seed(client: httpx.Client, noise: str) -> None:
    config = preset("tiny", 32, total_kimg=3, learning_rate=0.004).model_dump(mode="json")
    kept = start(client, dataset=noise, name="b1", config=config).json()["request"]["config"]
    assert kept == config
    changed = start(client, dataset=noise, name="b2", config=config, budget={"minutes": 2}, seed=9).json()
    assert changed["request"]["config"] == config | {"total_kimg": None, "max_minutes": 2, "seed": 9}


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code
    return error


def test_an_unknown_preset_is_refused_with_those_there_are(client: httpx.Client, noise: str) -> None:
    error = refusal(start(client, dataset=noise, name="c1", preset="huge"), 422, "preset_unknown")
    assert "classic, tiny" in error["message"]


def test_a_preset_that_does_not_fit_the_resolution_is_refused_with_what_fits(
    client: httpx.Client, prepared: Any, make_archive: Any
) -> None:
    dataset = prepared(make_archive(20, side=16), resolution="16")
    error = refusal(start(client, dataset=dataset, name="c2"), 422, "preset_does_not_fit")
    assert "32, 64, 128 px" in error["message"]
    assert "16 px" in error["message"]


def test_a_configuration_of_another_resolution_is_refused(client: httpx.Client, noise: str) -> None:
    config = preset("tiny", 64).model_dump(mode="json")
    error = refusal(start(client, dataset=noise, name="c3", config=config), 422, "config_does_not_fit")
    assert "64 px" in error["message"]
    assert "32" in error["message"]


def test_a_setting_out_of_bounds_is_refused_by_name(client: httpx.Client, noise: str) -> None:
    config = preset("tiny", 32).model_dump(mode="json") | {"learning_rate": 5}
    error = refusal(start(client, dataset=noise, name="c4", config=config), 422, "invalid_request")
    assert error["param"] == "config.learning_rate"


def test_preset_and_configuration_together_are_refused(client: httpx.Client, noise: str) -> None:
    config = preset("tiny", 32).model_dump(mode="json")
    refusal(start(client, dataset=noise, name="c5", preset="tiny", config=config), 422, "preset_and_config")


@pytest.mark.parametrize("name", ["", "a b", "../etc", "x@y", "a" * 101])
def test_a_name_that_cannot_be_one_is_refused(client: httpx.Client, noise: str, name: str) -> None:
    answer = start(client, dataset=noise, name=name)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "name"


def test_a_name_that_is_taken_is_a_conflict(client: httpx.Client, noise: str) -> None:
    refusal(start(client, dataset=noise, name="tiny"), 409, "model_exists")
    assert start(client, dataset=noise, name="twice").status_code == 202
    answer = start(client, dataset=noise, name="twice")
    refusal(answer, 409, "model_exists")
    assert answer.headers["x-should-retry"] == "false"


def test_a_dataset_that_is_missing_unready_or_failed_is_refused_with_the_reason(
    client: httpx.Client, prepared: Any, make_archive: Any
) -> None:
    refusal(start(client, dataset="ds_nothing", name="d1"), 404, "dataset_not_found")
    unready = client.post("/v1/datasets", data={"name": "x"}, files={"files": ("a.png", b"1")}).json()["id"]
    refusal(start(client, dataset=unready, name="d2"), 409, "dataset_not_ready")
    error = refusal(start(client, dataset=prepared(make_archive(1)), name="d3"), 409, "dataset_failed")
    assert "1" in error["message"]
