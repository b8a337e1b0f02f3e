"""A training is accepted with its whole configuration, or refused with what would do."""

from typing import Any

import httpx
import pytest

from models.config import TextConfig
from models.presets import preset
from models.text import build_encoder


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
    expected = preset("tiny", 32, text=TextConfig()).model_dump(mode="json")
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
    assert "classic, few-shot, fine-tune, quality, tiny" in error["message"]


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


def network(answer: httpx.Response) -> dict[str, Any]:
    """The networks a training was accepted with."""
    assert answer.status_code == 202, answer.text
    accepted: dict[str, Any] = answer.json()["request"]["config"]["network"]
    return accepted


def test_a_dataset_with_captions_or_labels_is_learnt_with_them_unless_told_otherwise(
    client: httpx.Client, noise: str, silent: str
) -> None:
    default = TextConfig().model_dump(mode="json")
    assert network(start(client, dataset=noise, name="e1"))["text"] == default
    assert network(start(client, dataset=noise, name="e2", encoder="none"))["text"] is None
    named = network(start(client, dataset=noise, name="e3", encoder="hashed-256"))["text"]
    assert (named["encoder"], named["features"]) == ("hashed-256", build_encoder("hashed-256").size)
    assert network(start(client, dataset=silent, name="e4"))["text"] is None
    assert network(start(client, dataset=noise, name="e5", preset="classic"))["text"] is None


def test_a_configurations_own_text_is_taken_as_it_is(client: httpx.Client, noise: str) -> None:
    config = preset("tiny", 32, total_kimg=1).model_dump(mode="json")
    assert network(start(client, dataset=noise, name="f1", config=config))["text"] is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"encoder": "hashed-7"}, "encoder_unavailable"),
        ({"encoder": "sentence:nothing-of-that-name"}, "encoder_unavailable"),
        ({"encoder": "hashed-256", "preset": "classic"}, "encoder_does_not_fit"),
        ({"encoder": "none", "config": preset("tiny", 32).model_dump(mode="json")}, "encoder_does_not_fit"),
    ],
)
def test_an_encoder_that_is_not_there_or_would_not_be_used_is_refused(
    client: httpx.Client, noise: str, body: dict[str, Any], code: str
) -> None:
    error = refusal(start(client, dataset=noise, name="g1", **body), 422, code)
    assert error["param"] == "encoder"


def test_texts_of_a_dataset_that_has_none_are_refused(client: httpx.Client, silent: str) -> None:
    refusal(start(client, dataset=silent, name="g2", encoder="hashed-256"), 422, "encoder_does_not_fit")
    config = preset("tiny", 32, text=TextConfig()).model_dump(mode="json")
    refusal(start(client, dataset=silent, name="g3", config=config), 422, "config_does_not_fit")


def test_a_base_is_pinned_to_the_weights_it_meant_when_it_was_asked_for(
    client: httpx.Client, app: Any, noise: str
) -> None:
    first = app.publish("origin", seed=1, kimg=1)
    newest = app.publish("origin", seed=2, kimg=2)
    by_name = start(client, dataset=noise, name="h1", base="origin").json()["request"]
    assert by_name["base"] == f"origin@{newest}"
    pinned = start(client, dataset=noise, name="h2", base=f"origin@{first[:12]}").json()["request"]
    assert pinned["base"] == f"origin@{first}"


@pytest.mark.parametrize(
    ("base", "code"),
    [("nobody", "model_not_found"), ("tiny@" + "0" * 12, "checkpoint_not_found")],
)
def test_a_base_that_does_not_exist_is_not_found(client: httpx.Client, noise: str, base: str, code: str) -> None:
    error = refusal(start(client, dataset=noise, name="h3", base=base), 404, code)
    assert error["param"] == "base"


def test_a_fine_tune_takes_its_bases_networks_and_reads_texts_where_there_are_any(
    client: httpx.Client, noise: str, silent: str
) -> None:
    own = network(start(client, dataset=silent, name="i1", preset="fine-tune", base="tiny"))
    assert own["generator_widths"] == [16, 8, 8, 4]  # of the published model
    assert own["text"] is None
    spoken = network(start(client, dataset=noise, name="i2", preset="fine-tune", base="tiny"))
    assert spoken == own | {"text": TextConfig().model_dump(mode="json")}


def test_a_fine_tune_without_a_base_or_of_another_resolution_is_refused(
    client: httpx.Client, noise: str, prepared: Any, make_archive: Any
) -> None:
    assert (
        "/v1/models"
        in refusal(start(client, dataset=noise, name="i3", preset="fine-tune"), 422, "base_missing")["message"]
    )
    larger = prepared(make_archive(20, side=64), resolution="64")
    error = refusal(
        start(client, dataset=larger, name="i4", preset="fine-tune", base="tiny"), 422, "preset_does_not_fit"
    )
    assert "32 px; this dataset has 64 px" in error["message"]


def test_a_base_of_another_architecture_is_refused_at_once(client: httpx.Client, noise: str) -> None:
    error = refusal(start(client, dataset=noise, name="i5", preset="quality", base="tiny"), 422, "base_does_not_fit")
    assert "'tiny' is a dcgan" in error["message"]
    assert start(client, dataset=noise, name="i6", preset="tiny", base="tiny").status_code == 202
