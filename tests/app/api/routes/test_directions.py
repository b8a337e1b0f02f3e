"""Directions are found by a job, shown, named, scaled and ordered over HTTP, and then sliders move along them."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.core import carrying, catalogue, directions, jobs
from app.core.records import DirectionVector, Job
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig
from models.presets import preset
from models.registry import build_generator
from worker import tasks

PNG = {"accept": "image/png"}


def publish(app: Any, name: str, *, seed: int, contrast: float = 5.0, mapping_layers: int = 1) -> str:
    """Publish random networks of 32 px whose pictures are far from grey; the model means them from then on."""
    shape: dict[str, Any] = {"resolution": 32, "z_dim": 16, "w_dim": 16, "num_ws": 4 if mapping_layers else 1}
    widths = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8), "generator_norm": "none"}
    sizes = {field: shape[field] for field in ("resolution", "z_dim", "w_dim")}
    network = NetworkConfig(**sizes, mapping_layers=mapping_layers, **widths)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(network)
    with torch.no_grad():
        for weight in generator.synthesis.parameters():
            weight.mul_(contrast)
    config = preset("tiny", 32).model_copy(update={"network": network})
    data = save_checkpoint(None, generator, CheckpointMeta(config=config, kimg=contrast, minutes=1))
    sha256: str = app.storage.put(data)
    model = {"name": name, "architecture": "dcgan"} | shape
    with app.db.begin() as session:
        catalogue.publish(session, model, sha256=sha256, kimg=contrast, bytes_=len(data), metrics={})
    return sha256


@pytest.fixture(scope="module")
def work(app: Any) -> Iterator[Callable[[str], Job]]:
    """Do the worker's part of a job here."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
        monkeypatch.setenv("GANVAS_THREADS", "1")

        def done(job_id: str) -> Job:
            tasks.render(job_id)
            with app.db.read() as session:
                return jobs.find(session, job_id)

        yield done


@pytest.fixture(scope="module")
def moss(app: Any, client: httpx.Client, work: Callable[[str], Job]) -> str:
    """The checkpoint of a model with three directions; tests that change them make one of their own."""
    checkpoint = publish(app, "moss", seed=5)
    find(client, "moss", work, count=3)
    return checkpoint


def find(client: httpx.Client, model: str, work: Callable[[str], Job], **wish: Any) -> Job:
    answer = client.post(f"/v1/models/{model}/directions", json=wish)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job = work(answer.json()["id"])
    assert job.status == "succeeded", job.message
    return job


def listed(client: httpx.Client, model: str) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = client.get(f"/v1/models/{model}/directions").json()["data"]
    return data


def pixels(answer: httpx.Response) -> "np.ndarray[tuple[int, int, int], np.dtype[np.int16]]":
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(np.int16)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def draw(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/v1/images/generations", json={"model": "moss", "seed": 3} | body, headers=PNG)


def test_found_directions_are_listed_with_what_is_known_of_them(client: httpx.Client, moss: str) -> None:
    entries = listed(client, "moss")
    assert [entry["name"] for entry in entries] == ["sefa-0", "sefa-1", "sefa-2"]
    assert client.get("/v1/models/moss").json()["directions"] == ["sefa-0", "sefa-1", "sefa-2"]
    first = entries[0]
    assert (first["object"], first["method"], first["state"]) == ("direction", "sefa", "found")
    assert (first["checkpoint"], first["scale"], first["position"]) == (moss, 1.0, 0)
    assert (first["score"], first["layers"]) == (None, None)
    assert 0 < first["share"] < 1


def test_a_slider_of_nothing_changes_nothing_and_the_file_is_the_same(client: httpx.Client, moss: str) -> None:
    plain = draw(client)
    assert draw(client, sliders={"sefa-0": 0, "sefa-1": 0.0}).content == plain.content
    assert not np.array_equal(pixels(draw(client, sliders={"sefa-0": 1})), pixels(plain))


@pytest.mark.parametrize("name", ["sefa-0", "sefa-1", "sefa-2"])
def test_pictures_move_along_a_direction_the_further_the_higher_its_slider(
    client: httpx.Client, moss: str, name: str
) -> None:
    amounts = [-3, -2, -1, 0, 1, 2, 3]
    strips = []
    for seed in range(4):
        strip = pixels(
            client.get(f"/v1/models/moss/directions/{name}/strip", params={"seed": seed, "steps": 7, "range": 3})
        )
        strips.append([strip[:, start : start + 32].ravel() for start in range(0, strip.shape[1], 32 + 2)])
    pictures = np.array(strips, dtype=np.float64)  # [seeds, amounts, pixels]
    assert pictures.shape[:2] == (4, len(amounts))
    change = pictures[:, -1] - pictures[:, 0]
    change /= np.linalg.norm(change, axis=1, keepdims=True)
    moved = ((pictures - pictures[:, 3:4]) * change[:, None]).sum(axis=2).mean(axis=0)
    assert (np.diff(moved) > 0).all()


def test_sliders_are_one_recipe_in_any_order_and_its_url_draws_it_again(client: httpx.Client, moss: str) -> None:
    body = {"model": "moss", "seed": 3, "response_format": "url"}
    answers = [
        client.post("/v1/images/generations", json=body | {"sliders": sliders}).json()["data"][0]
        for sliders in ({"sefa-0": 1.5, "sefa-2": -2}, {"sefa-2": -2.0, "sefa-0": 1.5})
    ]
    assert answers[0] == answers[1]
    again = client.get(answers[0]["url"])
    drawn = draw(client, sliders={"sefa-0": 1.5, "sefa-2": -2})
    assert again.content == drawn.content
    assert again.headers["x-ganvas-recipe"] == drawn.headers["x-ganvas-recipe"]
    assert "immutable" in again.headers["cache-control"]
    by_name = client.get(f"/v1/models/moss@{moss}/image?seed=3&sliders=sefa-2:-2,sefa-0:1.5")
    assert by_name.headers["etag"] == again.headers["etag"]
    assert "immutable" not in by_name.headers["cache-control"]  # its names and scales are the artist's to change


def test_a_pinned_step_stays_what_it_was_when_the_artist_renames_scales_and_deletes(
    client: httpx.Client, app: Any, work: Callable[[str], Job]
) -> None:
    publish(app, "pinned", seed=6)
    find(client, "pinned", work, count=2)
    body = {"model": "pinned", "seed": 1, "sliders": {"sefa-1": 2}, "response_format": "url"}
    url = client.post("/v1/images/generations", json=body).json()["data"][0]["url"]
    before = client.get(url).content
    named = pixels(client.get("/v1/models/pinned/image?seed=1&sliders=sefa-1:2"))
    changed = client.patch("/v1/models/pinned/directions/sefa-1", json={"name": "rust", "scale": 0.5, "position": 0})
    assert [changed.json()[field] for field in ("name", "scale", "position")] == ["rust", 0.5, 0]
    assert client.get("/v1/models/pinned").json()["directions"] == ["rust", "sefa-0"]
    assert client.get(url).content == before
    assert np.array_equal(pixels(client.get("/v1/models/pinned/image?seed=1&sliders=rust:4")), named)
    assert refused(client.get("/v1/models/pinned/image?seed=1&sliders=sefa-1:2")) == (422, "direction_not_found")
    gone = client.delete("/v1/models/pinned/directions/rust").json()
    assert gone == {"id": "rust", "object": "direction", "deleted": True}
    assert client.get(url).content == before
    assert [entry["position"] for entry in listed(client, "pinned")] == [0]


@pytest.mark.parametrize(
    ("sliders", "code"),
    [
        ("rust:1", "direction_not_found"),
        ("sefa-0", "invalid_request"),
        ("sefa-0:far", "invalid_request"),
        ("sefa-0:nan", "invalid_request"),
        ("sefa-0:21", "invalid_request"),
        ("sefa-0:1,sefa-0:2", "invalid_request"),
        ("sefa-0:1,", "invalid_request"),
        (":1", "invalid_request"),
        (f"sefa-0~{'a' * 63}:1", "invalid_request"),
        (",".join(f"x{n}:1" for n in range(33)), "invalid_request"),
    ],
)
def test_sliders_that_cannot_be_read_are_refused_with_the_reason(
    client: httpx.Client, moss: str, sliders: str, code: str
) -> None:
    answer = client.get("/v1/models/moss/image", params={"seed": 1, "sliders": sliders})
    assert refused(answer) == (422, code)
    assert answer.json()["error"]["param"] == "sliders"


def test_only_what_is_listed_as_a_latent_is_ever_read_as_a_step(client: httpx.Client, app: Any, moss: str) -> None:
    for blob in (moss, "f" * 64):
        answer = client.get(f"/v1/models/moss/image?seed=1&sliders=rust~{blob}:1")
        assert refused(answer) == (404, "latent_not_found")


def test_a_slider_is_refused_in_the_body_as_it_is_in_a_url(client: httpx.Client, moss: str) -> None:
    unknown = draw(client, sliders={"rust": 1})
    assert refused(unknown) == (422, "direction_not_found")
    assert "sefa-0, sefa-1, sefa-2" in unknown.json()["detail"]
    assert refused(draw(client, sliders={"sefa-0": 20.5})) == (422, "invalid_request")
    assert draw(client, model="tiny", sliders={}).status_code == 200
    assert refused(draw(client, model="tiny", sliders={"rust": 1})) == (422, "direction_not_found")


def test_a_strip_is_a_row_of_the_pictures_that_the_slider_paints(client: httpx.Client, moss: str) -> None:
    query = {"seed": 4, "psi": 0.5, "steps": 3, "range": 2, "size": "48x32"}
    strip = pixels(client.get("/v1/models/moss/directions/sefa-1/strip", params=query))
    assert strip.shape == (32, 3 * 48 + 2 * 2, 3)
    for place, amount in enumerate((-2, 0, 2)):
        picture = pixels(client.get(f"/v1/models/moss/image?seed=4&psi=0.5&size=48x32&sliders=sefa-1:{amount}"))
        assert np.array_equal(strip[:, place * 50 : place * 50 + 48], picture)
    assert refused(client.get("/v1/models/moss/directions/rust/strip")) == (404, "direction_not_found")
    wide = client.get("/v1/models/moss/directions/sefa-1/strip?steps=25&size=2048x8")
    assert refused(wide) == (422, "invalid_request")
    assert client.get("/v1/models/moss/directions/sefa-1/strip?steps=1").status_code == 422


def test_what_a_job_has_just_found_can_be_used_at_once(
    client: httpx.Client, app: Any, work: Callable[[str], Job]
) -> None:
    publish(app, "quick", seed=10)
    for method in ("sefa", "pca"):
        assert client.get("/v1/models/quick/image?seed=1").status_code == 200  # looked up, and remembered for a moment
        find(client, "quick", work, method=method, count=1)
        assert client.get(f"/v1/models/quick/directions/{method}-0/strip").status_code == 200
        assert client.get(f"/v1/models/quick/image?seed=1&sliders={method}-0:1").status_code == 200


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"method": "ica"}, 422, "invalid_request"),
        ({"count": 0}, 422, "invalid_request"),
        ({"count": 17}, 422, "invalid_request"),
        ({"layers": "0-4"}, 422, "invalid_request"),
        ({"layers": []}, 422, "invalid_request"),
        ({"layers": "top"}, 422, "invalid_request"),
        ({"number": 3}, 422, "unknown_field"),
    ],
)
def test_a_search_that_cannot_be_is_refused_at_once(
    client: httpx.Client, moss: str, wish: dict[str, Any], status: int, code: str
) -> None:
    assert refused(client.post("/v1/models/moss/directions", json=wish)) == (status, code)


def test_a_model_whose_w_is_z_has_no_principal_components(client: httpx.Client, app: Any) -> None:
    publish(app, "flat", seed=1, mapping_layers=0)
    answer = client.post("/v1/models/flat/directions", json={"method": "pca"})
    assert refused(answer) == (422, "pca_needs_mapping")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"name": "a/b"}, 422, "direction_name_invalid"),
        ({"name": "sefa-1"}, 409, "direction_exists"),
        ({"scale": 0}, 422, "invalid_request"),
        ({"scale": 1e9}, 422, "invalid_request"),
        ({"position": -1}, 422, "invalid_request"),
        ({"colour": "red"}, 422, "unknown_field"),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_changes_nothing(
    client: httpx.Client, moss: str, change: dict[str, Any], status: int, code: str
) -> None:
    before = listed(client, "moss")
    assert refused(client.patch("/v1/models/moss/directions/sefa-0", json=change)) == (status, code)
    assert listed(client, "moss") == before
    assert refused(client.patch("/v1/models/moss/directions/nothing", json={})) == (404, "direction_not_found")


def test_directions_follow_a_promotion_and_a_slider_says_where_they_are(
    client: httpx.Client, app: Any, work: Callable[[str], Job]
) -> None:
    first = publish(app, "walker", seed=7)
    find(client, "walker", work, count=1)
    assert client.patch("/v1/models/walker/directions/sefa-0", json={"name": "rust"}).status_code == 200
    second = publish(app, "walker", seed=8)
    assert client.post("/v1/models/walker/promote", json={"checkpoint": second}).status_code == 200
    url = "/v1/models/walker/image?seed=1&sliders=rust:1"
    waiting = client.get(url)
    assert refused(waiting) == (409, "direction_waiting")
    assert (waiting.headers["x-should-retry"], int(waiting.headers["retry-after"]) > 0) == ("true", True)
    assert (listed(client, "walker")[0]["state"], listed(client, "walker")[0]["strip"]) == ("waiting", None)
    assert client.get(f"/v1/models/walker@{first[:12]}/image?seed=1&sliders=rust:1").status_code == 200
    with app.db.begin() as session:  # as the matching would, had nothing been alike
        row = directions.find(session, "walker", "rust")
        carrying.publish(
            session, app.storage, row.id, second, vector=None, score=0.1, carried_from=first, job_id="job_1"
        )
    lost = client.get(url)
    assert refused(lost) == (409, "direction_lost")
    assert lost.headers["x-should-retry"] == "false"
    assert client.get("/v1/models/walker/image?seed=1&sliders=rust:0").status_code == 200
    entry = listed(client, "walker")[0]
    assert (entry["state"], entry["score"], entry["carried_from"]) == ("lost", 0.1, first)


def test_a_slider_asks_for_its_direction_where_nobody_has_looked_for_it(
    client: httpx.Client, app: Any, work: Callable[[str], Job]
) -> None:
    older = publish(app, "asked", seed=9)
    newer = publish(app, "asked", seed=9, contrast=5.1)
    find(client, f"asked@{newer[:12]}", work, count=1)

    def wishes() -> list[Job]:
        with app.db.read() as session:
            rows = session.query(Job).filter_by(kind="render", status="queued")
            return [job for job in rows if job.request.get("checkpoint") == older]

    url = f"/v1/models/asked@{older[:12]}/image?seed=1&sliders=sefa-0:1"
    assert wishes() == []
    assert client.get(url.partition("&")[0]).status_code == 200
    assert wishes() == []
    for _ in range(2):
        assert refused(client.get(url)) == (409, "direction_waiting")
    (wish,) = wishes()
    assert work(wish.id).status == "succeeded"
    assert client.get(url).status_code == 200
    with app.db.read() as session:
        vectors = session.query(DirectionVector).filter_by(checkpoint=older).all()
    assert [vector.carried_from for vector in vectors] == [newer]
