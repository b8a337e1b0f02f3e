"""Two checkpoints of one lineage make a new model with its parents recorded; others are refused, and told why."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import torch

from app.core import catalogue, jobs
from app.core.records import Job
from models.checkpoint import CheckpointMeta, load_generator, save_checkpoint
from models.config import NetworkConfig
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator
from worker import tasks

WIDTHS = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8), "generator_norm": "none"}


@pytest.fixture(scope="module")
def work(app: Any) -> Iterator[Callable[[httpx.Response], Job]]:
    """Do the worker's part of what was asked for here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
        monkeypatch.setenv("GANVAS_THREADS", "1")

        def done(answer: httpx.Response) -> Job:
            assert answer.status_code == 202, answer.text
            tasks.render(answer.json()["id"])
            with app.db.read() as session:
                return jobs.find(session, answer.json()["id"])

        yield done


def publish(app: Any, name: str, *, seed: int, trained: float = 0.0, w_dim: int = 16) -> str:
    """Publish random networks; trained: how far other weights, always the same ones, were added to them."""
    network = NetworkConfig(resolution=32, z_dim=16, w_dim=w_dim, mapping_layers=1, **WIDTHS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator, learnt = build_generator(network), build_generator(network)
    with torch.no_grad():
        for weight, change in zip(generator.parameters(), learnt.parameters(), strict=True):
            weight.add_(change, alpha=trained)
    config = preset("tiny", 32).model_copy(update={"network": network})
    meta = CheckpointMeta(config=config, kimg=1 + trained, minutes=1, license="CC BY 4.0")
    data = save_checkpoint(None, generator, meta)
    sha256: str = app.storage.put(data)
    model = {"name": name, "architecture": "dcgan", "resolution": 32, "z_dim": 16, "w_dim": w_dim, "num_ws": 4}
    with app.db.begin() as session:
        catalogue.publish(session, model, sha256=sha256, kimg=1 + trained, bytes_=len(data), metrics={})
    return sha256


@pytest.fixture(scope="module")
def parents(app: Any) -> tuple[str, str]:
    """Two checkpoints of the model `bark`."""
    return publish(app, "bark", seed=50), publish(app, "bark", seed=50, trained=0.5)


def weights(app: Any, sha256: str) -> Generator:
    return load_generator(app.storage.path(sha256))[0]


def test_a_blend_is_a_new_model_that_says_what_it_was_made_of(
    client: httpx.Client, app: Any, parents: tuple[str, str], work: Callable[[httpx.Response], Job]
) -> None:
    first, second = parents
    wish = {"with": f"bark@{second}", "amounts": {"layers": "2-3"}, "name": "mulch"}
    answer = client.post(f"/v1/models/bark@{first}/blend", json=wish)
    assert answer.json()["request"]["amounts"] == [0, 0, 1, 1]
    job = work(answer)
    assert job.status == "succeeded", job.message
    shown = client.get("/v1/models/mulch").json()
    assert shown["parents"] == [f"bark@{first}", f"bark@{second}"]
    assert (shown["job"], shown["license"], shown["num_ws"]) == (job.id, "CC BY 4.0", 4)
    assert job.result == {"model": "mulch", "checkpoint": shown["checkpoint"]}
    assert client.get("/v1/models/mulch/image?seed=1").status_code == 200
    assert client.get("/v1/models/bark").json()["parents"] == []
    a, b, c = (weights(app, sha256) for sha256 in (first, second, shown["checkpoint"]))
    for name, weight in c.synthesis.named_parameters():
        parent = b if a.synthesis.stage_of(name) >= 2 else a  # type: ignore[operator]
        assert torch.equal(weight, dict(parent.synthesis.named_parameters())[name]), name
    assert torch.equal(c.mapping.layers[0].weight, a.mapping.layers[0].weight)  # type: ignore[arg-type,index,union-attr]


@pytest.mark.parametrize(
    ("amounts", "written", "mapping"),
    [(0.25, [0.25] * 4, 0.25), ([0, 0.5, 1, 1], [0, 0.5, 1, 1], 0.0), (1, [1] * 4, 1.0)],
)
def test_amounts_are_one_for_all_or_one_for_each_layer(
    client: httpx.Client, parents: tuple[str, str], amounts: Any, written: list[float], mapping: float
) -> None:
    wish = {"with": "bark", "amounts": amounts, "name": "spread"}
    answer = client.post(f"/v1/models/bark@{parents[0]}/blend", json=wish)
    request = answer.json()["request"]
    assert (request["amounts"], request["mapping"]) == (written, mapping)
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    client.post(f"/v1/jobs/{answer.json()['id']}/cancel")


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"amounts": [0, 1]}, 422, "invalid_request", "amounts"),
        ({"amounts": 1.5}, 422, "invalid_request", None),
        ({"amounts": {"layers": "3-4"}}, 422, "invalid_request", "amounts.layers"),
        ({"with": "nobody"}, 404, "model_not_found", "with"),
        ({"with": "bark@ffffffffffff"}, 404, "checkpoint_not_found", "with"),
        ({"name": "tiny"}, 409, "model_exists", "name"),
        ({"name": "../x"}, 422, "model_name_invalid", "name"),
        ({"share": 1}, 422, "unknown_field", "share"),
    ],
)
def test_a_blend_that_cannot_be_is_refused_at_once(
    client: httpx.Client,
    parents: tuple[str, str],
    changes: dict[str, Any],
    status: int,
    code: str,
    param: str | None,
) -> None:
    answer = client.post("/v1/models/bark/blend", json={"with": "bark", "amounts": 0.5, "name": "no"} | changes)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert param is None or answer.json()["error"]["param"] == param


def test_networks_of_another_shape_are_refused_by_the_field_that_differs(
    client: httpx.Client, app: Any, parents: tuple[str, str]
) -> None:
    publish(app, "wide", seed=51, w_dim=32)
    answer = client.post("/v1/models/bark/blend", json={"with": "wide", "amounts": 0.5, "name": "no"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "blend_does_not_fit")
    assert "w_dim: 32 and 16" in answer.json()["detail"]


def test_weights_without_a_common_beginning_are_refused_by_the_job(
    client: httpx.Client, app: Any, parents: tuple[str, str], work: Callable[[httpx.Response], Job]
) -> None:
    publish(app, "stranger", seed=52)
    job = work(client.post("/v1/models/bark/blend", json={"with": "stranger", "amounts": 0.5, "name": "no"}))
    assert (job.status, job.error and job.error["code"]) == ("failed", "blend_unrelated")
    assert "no common beginning" in job.message
    assert client.get("/v1/models/no").status_code == 404


def test_a_name_that_was_taken_meanwhile_stays_with_who_took_it(
    client: httpx.Client, app: Any, parents: tuple[str, str], work: Callable[[httpx.Response], Job]
) -> None:
    answer = client.post("/v1/models/bark/blend", json={"with": f"bark@{parents[0]}", "amounts": 0.5, "name": "late"})
    again = client.post("/v1/models/bark/blend", json={"with": f"bark@{parents[0]}", "amounts": 0.5, "name": "late"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "model_exists")
    taken = app.publish("late", seed=53, job_id="job_of_another")
    job = work(answer)
    assert (job.status, job.error and job.error["code"]) == ("failed", "model_exists")
    assert client.get("/v1/models/late").json()["checkpoint"] == taken
