"""Variations over HTTP: neighbours of a picture, however it is named, and children of two."""

import base64
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.api.middleware import PICTURE_MAX_BYTES
from app.core import latents
from app.serving import artwork
from app.serving.artwork import File
from app.serving.encode import encode, read_recipe
from app.serving.film import FilmRecipe
from app.serving.point import Point
from app.serving.recipe import Recipe
from models.latents.variation import crossing
from worker import tasks

ROUTE = "/v1/images/variations"
DRAW = "/v1/images/generations"
UNKNOWN = "0123456789ab" + "c" * 52
NUM_WS, W_DIM = 4, 16  # of `vivid`


def vary(client: httpx.Client, of: Any, **body: Any) -> dict[str, Any]:
    answer = client.post(ROUTE, json={"of": of, **body})
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def draw(client: httpx.Client, **body: Any) -> tuple[dict[str, Any], bytes]:
    """The recipe and the file of one picture."""
    answer = client.post(DRAW, json={"model": "vivid", "seed": 42} | body)
    assert answer.status_code == 200, answer.text
    (picture,) = answer.json()["data"]
    return picture["recipe"], base64.b64decode(picture["b64_json"])


def files(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(picture["b64_json"]) for picture in answer["data"]]


def pixels(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.fixture(scope="module")
def parent(client: httpx.Client, vivid: str) -> dict[str, Any]:
    """The recipe of a picture."""
    recipe, _ = draw(client)
    assert recipe["checkpoint"] == vivid
    return recipe


@pytest.fixture(autouse=True)
def ready(parent: dict[str, Any]) -> None:
    """For tests that draw a parent of their own."""


def test_each_neighbour_has_a_seed_of_its_own_and_its_recipe(client: httpx.Client, parent: dict[str, Any]) -> None:
    answer = vary(client, parent, n=3, seed=10)
    assert [picture["seed"] for picture in answer["data"]] == [10, 11, 12]
    assert (answer["model"], answer["checkpoint"], answer["size"]) == ("vivid", parent["checkpoint"], "32x32")
    for picture, file in zip(answer["data"], files(answer), strict=True):
        step = {"seed": picture["seed"], "strength": 0.3}
        assert Recipe.model_validate(picture["recipe"]) == Recipe.model_validate(parent | {"variations": [step]})
        assert read_recipe(file) == Recipe.model_validate(picture["recipe"])
        assert draw(client, model=None, seed=None, recipe=picture["recipe"])[1] == file
    assert len(set(files(answer))) == 3
    assert files(vary(client, parent, n=3, seed=10)) == files(answer)
    assert "artwork" not in answer["data"][0]


def test_strength_leads_from_the_picture_itself_to_another(client: httpx.Client, parent: dict[str, Any]) -> None:
    own = pixels(draw(client)[1])
    near, middle, far = (
        np.abs(pixels(files(vary(client, parent, seed=7, strength=strength))[0]) - own).mean()
        for strength in (0.1, 0.4, 1)
    )
    assert np.array_equal(pixels(files(vary(client, parent, seed=7, strength=0))[0]), own)
    assert 0 < near < middle < far
    other = pixels(draw(client, seed=7)[1])
    assert np.abs(pixels(files(vary(client, parent, seed=7, strength=1))[0]) - other).max() <= 1


def test_a_variation_of_a_variation_goes_on_from_there(client: httpx.Client, parent: dict[str, Any]) -> None:
    once = vary(client, parent, seed=1)["data"][0]["recipe"]
    twice = vary(client, once, seed=2, strength=0.1)["data"][0]["recipe"]
    assert twice["variations"] == [{"seed": 1, "strength": 0.3}, {"seed": 2, "strength": 0.1}]


def test_a_seed_is_chosen_and_told_where_none_is_given(client: httpx.Client, parent: dict[str, Any]) -> None:
    first, second = vary(client, parent), vary(client, parent, seed=-1)
    assert first["data"][0]["seed"] != second["data"][0]["seed"]
    assert files(vary(client, parent, seed=first["data"][0]["seed"])) == files(first)


def test_a_picture_may_be_named_by_recipe_artwork_url_or_list(client: httpx.Client, app: Any) -> None:
    recipe, _ = draw(client, size="48x40", mix={"seed": 3, "layers": "1"})
    kept = client.post("/v1/artworks", json={"recipe": recipe}).json()["id"]
    path = Recipe.model_validate(recipe).url("webp")
    answers = [vary(client, of, seed=5) for of in (recipe, kept, path, app.url + path, [kept])]
    assert {tuple(files(answer)) for answer in answers} == {tuple(files(answers[0]))}
    assert answers[0]["size"] == "48x40"
    assert vary(client, recipe, seed=5, size="auto")["size"] == "32x32"
    assert vary(client, recipe, seed=5, size="16x8")["data"][0]["recipe"]["size"] == [16, 8]


def test_two_pictures_have_children(client: httpx.Client, parent: dict[str, Any]) -> None:
    second, _ = draw(client, seed=43, truncation_psi=0.4, size="64x64")
    answer = vary(client, [parent, second], n=4, seed=20)
    assert [picture["seed"] for picture in answer["data"]] == [20, 21, 22, 23]
    for picture in answer["data"]:
        recipe = Recipe.model_validate(picture["recipe"])
        assert recipe.cross is not None
        assert (recipe.cross.first, recipe.cross.second) == (Point(seed=42), Point(seed=43, truncation_psi=0.4))
        assert (recipe.cross.amount, recipe.cross.layers) == crossing(picture["seed"], NUM_WS)
        assert (recipe.seed, recipe.truncation_psi, recipe.size) == (picture["seed"], 1.0, (32, 32))
        assert [(step.seed, step.strength) for step in recipe.variations] == [(picture["seed"], 0.1)]
    assert len(set(files(answer))) == 4
    child = answer["data"][0]["recipe"]
    assert vary(client, [child, second], seed=1)["data"][0]["recipe"]["cross"]["first"]["cross"] is not None
    assert vary(client, child, seed=1)["data"][0]["recipe"]["cross"] == child["cross"]


def test_a_child_lies_between_its_parents(client: httpx.Client, parent: dict[str, Any]) -> None:
    second, other = draw(client, seed=43)
    own, other_pixels = pixels(draw(client)[1]), pixels(other)
    seed = next(seed for seed in range(99) if crossing(seed, NUM_WS).layers is None)
    child = pixels(files(vary(client, [parent, second], seed=seed, strength=0))[0])
    apart = np.abs(own - other_pixels).mean()
    assert 0 < np.abs(child - own).mean() < apart
    assert 0 < np.abs(child - other_pixels).mean() < apart


def test_parents_of_other_weights_have_no_children(client: httpx.Client, app: Any, parent: dict[str, Any]) -> None:
    app.publish("stranger", seed=8)
    stranger, _ = draw(client, model="stranger")
    answer = client.post(ROUTE, json={"of": [parent, stranger]})
    assert refusal(answer) == (422, "parents_differ", "of")
    for name in ("vivid@", "stranger@"):
        assert name in answer.json()["detail"]


def test_kept_variations_know_their_parents(client: httpx.Client, parent: dict[str, Any]) -> None:
    kept = [vary(client, of, seed=3, keep=True) for of in (parent, [parent, draw(client, seed=43)[0]])]
    shown = [client.get(f"/v1/artworks/{answer['data'][0]['artwork']}").json() for answer in kept]
    assert [each["relation"] for each in shown] == ["variation", "child"]
    assert [each["title"] for each in shown] == ["vivid, seed 42, variation 3", "vivid, child 3"]
    for answer, each in zip(kept, shown, strict=True):
        assert [client.get(each["url"]).content] == files(answer)


def test_variations_come_as_urls_as_bytes_and_in_a_zip(client: httpx.Client, parent: dict[str, Any]) -> None:
    body = {"of": parent, "seed": 30, "n": 2, "output_format": "webp", "output_compression": 50}
    expected = files(vary(client, **body))
    urls = [picture["url"] for picture in vary(client, **body, response_format="url")["data"]]
    assert [client.get(url).content for url in urls] == expected
    many = client.post(ROUTE, json=body, headers={"accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(many.content)) as archive:
        assert archive.namelist() == ["00-30.webp", "01-31.webp"]
        assert [archive.read(name) for name in archive.namelist()] == expected
    one = client.post(ROUTE, json=body | {"n": 1}, headers={"accept": "image/webp"})
    assert one.content == expected[0]
    assert Recipe.model_validate_json(one.headers["x-ganvas-recipe"]).variations[0].seed == 30
    assert refusal(client.post(ROUTE, json=body, headers={"accept": "image/png"}))[1] == "accept_zip"


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_file_of_ours_says_what_to_vary(client: httpx.Client, output_format: str) -> None:
    recipe, file = draw(client, output_format=output_format, size="40x24")
    form = {"n": "2", "seed": "9", "strength": "0.2", "size": "", "model": "dall-e-2", "user": "me", "keep": "false"}
    answer = client.post(ROUTE, files={"image": file}, data=form)
    assert answer.status_code == 200, answer.text
    assert files(answer.json()) == files(vary(client, recipe, n=2, seed=9, strength=0.2))


def test_a_renamed_file_is_known_by_its_weights(client: httpx.Client, app: Any, parent: dict[str, Any]) -> None:
    renamed = Recipe.model_validate(parent | {"model": "another name", "device": "cuda", "dtype": "float16"})
    file = encode(np.zeros((32, 32, 3), np.uint8), output_format="png", recipe=renamed)
    answer = client.post(ROUTE, files={"image": file}, data={"seed": "1"})
    assert files(answer.json()) == files(vary(client, parent, seed=1))


def test_what_is_no_picture_is_refused_before_it_is_looked_for(client: httpx.Client) -> None:
    for file in (b"", b"any other file", b"RIFF....AVI "):
        assert refusal(client.post(ROUTE, files={"image": file})) == (422, "picture_expected", "image")


def test_a_foreign_picture_is_looked_for_and_its_neighbours_are_drawn(
    client: httpx.Client, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue has no worker here, so the test is one."""
    _, minimal = draw(client, metadata="minimal")
    monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
    monkeypatch.setenv("GANVAS_THREADS", "1")
    monkeypatch.setattr("worker.rendering.projections.STEPS", 4)
    monkeypatch.setattr("models.latents.projection.SEEDS", 200)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, ROUTE, files={"image": minimal}, data={"n": "2", "seed": "3"})
        waiting: list[dict[str, Any]] = []
        while not waiting:
            waiting = client.get("/v1/jobs", params={"kind": "project", "status": "queued"}).json()["data"]
        tasks.project(waiting[0]["id"])
        answer = asked.result()
    assert answer.status_code == 200, answer.text
    first, second = (picture["recipe"] for picture in answer.json()["data"])
    assert first["latent"] == second["latent"]
    assert [first["variations"][0]["seed"], second["variations"][0]["seed"]] == [3, 4]
    assert client.get(f"/v1/jobs/{waiting[0]['id']}").json()["result"]["recipe"]["latent"] == first["latent"]


def test_a_film_is_of_many_pictures(client: httpx.Client, app: Any, parent: dict[str, Any]) -> None:
    about = {"kind": "walk", "path": "linear", "space": "w", "easing": "linear", "fps": 24, "frames": 8}
    points = (Point(seed=1), Point(seed=2))
    film = FilmRecipe(model="vivid", checkpoint=parent["checkpoint"], keyframes=points, size=(8, 8), **about)
    with app.db.begin() as session:
        file = File(app.storage.put(b"a walk"), "video/mp4", (8, 8), 6)
        kept = artwork.keep(session, app.storage, film, file).id
    for answer in (
        client.post(ROUTE, json={"of": kept}),
        client.post(ROUTE, json={"of": film.model_dump(mode="json")}),
        client.post(ROUTE, files={"image": b"a film " + film.canonical_json().encode()}),
    ):
        assert refusal(answer)[:2] == (422, "picture_expected")
        assert "is a walk" in answer.json()["detail"]


def test_only_listed_steps_are_taken(client: httpx.Client, app: Any, parent: dict[str, Any]) -> None:
    step = np.random.RandomState(0).randn(NUM_WS, W_DIM).astype(np.float32)
    stored = latents.store(app.storage, step)
    slid = parent | {"sliders": [{"name": "rust", "amount": 1.5, "offset": stored}]}
    assert refusal(client.post(ROUTE, json={"of": slid})) == (404, "latent_not_found", "of")
    with app.db.begin() as session:
        latents.keep(session, app.storage, stored, (NUM_WS, W_DIM))
    assert files(vary(client, slid, seed=1)) != files(vary(client, parent, seed=1))
    assert vary(client, slid, seed=1)["data"][0]["recipe"]["sliders"] == slid["sliders"]
    child = vary(client, [slid, parent], seed=1)["data"][0]["recipe"]
    assert (child["cross"]["first"]["sliders"], child["sliders"]) == (slid["sliders"], [])


def test_what_no_recipe_can_say_is_refused(client: httpx.Client, parent: dict[str, Any]) -> None:
    steps = [{"seed": seed, "strength": 0.1} for seed in range(16)]
    answer = client.post(ROUTE, json={"of": parent | {"variations": steps}})
    assert refusal(answer) == (422, "recipe_too_deep", "of")
    child = parent
    for _ in range(4):
        child = vary(client, [child, child], seed=1, response_format="url")["data"][0]["recipe"]
    answer = client.post(ROUTE, json={"of": [child, child]})
    assert refusal(answer) == (422, "recipe_too_deep", "of")
    assert "points" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({}, (422, "missing_field", "of")),
        ({"of": []}, (422, "invalid_request", "of")),
        ({"of": ["art_1", "art_2", "art_3"]}, (422, "invalid_request", "of")),
        ({"of": "art_nobody"}, (404, "artwork_not_found", "artwork")),
        ({"of": "/v1/models/vivid/image"}, (422, "invalid_request", "of")),
        ({"of": "/v1/models/vivid/image?seed=1&more=2"}, (422, "unknown_field", "of.more")),
        ({"of": "/v1/models/vivid/download"}, (422, "invalid_request", "of")),
        ({"of": "/v1/models/nobody/image?seed=1"}, (404, "model_not_found", "model")),
        ({"of": {"seed": 1}}, (422, "missing_field", "of.model")),
        ({"of": "art_1", "strength": 1.5}, (422, "invalid_request", "strength")),
        ({"of": "art_1", "n": 65}, (422, "invalid_request", "n")),
        ({"of": "art_1", "seed": 2**32}, (422, "invalid_request", "seed")),
        ({"of": "art_1", "output_format": "gif"}, (422, "invalid_request", "output_format")),
    ],
)
def test_what_cannot_be_varied_is_refused_by_name(
    client: httpx.Client, body: dict[str, Any], refused: tuple[int, str, str]
) -> None:
    assert refusal(client.post(ROUTE, json=body)) == refused


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"checkpoint": UNKNOWN}, (404, "checkpoint_not_found")),
        ({"latent": UNKNOWN}, (404, "latent_not_found")),
        ({"seed": -1}, (422, "invalid_request")),
        ({"size": [32, 99_999]}, (422, "invalid_request")),
        ({"checkpoint": "../" * 20}, (422, "invalid_request")),
        ({"mix": {"seed": 1, "layers": [NUM_WS]}}, (422, "invalid_request")),
        ({"cross": {"first": {}, "second": {}, "amount": 0.5}}, (422, "missing_field")),
        ({"truncation_psi": float("nan")}, (422, "invalid_request")),
    ],
)
def test_a_recipe_from_anyone_is_checked(
    client: httpx.Client, parent: dict[str, Any], change: dict[str, Any], refused: tuple[int, str]
) -> None:
    for of in (parent | change, [parent, parent | change]):
        body = json.dumps({"of": of})
        answer = client.post(ROUTE, content=body, headers={"content-type": "application/json"})
        assert refusal(answer)[:2] == refused
    file = b"any file " + json.dumps(parent | change, sort_keys=True, separators=(",", ":")).encode()
    assert client.post(ROUTE, files={"image": file}).status_code in {404, 422}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"[" * 500_000,
        b'{"of":' * 100_000,
        b'{"of":{"cross":{"first":' * 40_000,
    ],
)
def test_what_is_no_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422


def test_uploads_and_bodies_are_bounded(client: httpx.Client) -> None:
    answer = client.post(ROUTE, content=b" " * 2_000_000, headers={"content-type": "application/json"})
    assert refusal(answer)[:2] == (413, "too_large")
    answer = client.post(ROUTE, files={"image": bytes(PICTURE_MAX_BYTES)})
    assert refusal(answer)[:2] == (413, "too_large")
    assert refusal(client.post(ROUTE, data={"n": "2"}, files={"picture": b"1"})) == (422, "missing_field", "image")
    assert refusal(client.post(ROUTE, files={"n": (None, "2")})) == (422, "missing_field", "image")
    assert client.post(ROUTE, files=[("image", b"1"), ("image", b"2")]).status_code in {400, 422}
    broken = client.post(ROUTE, content=b"--y", headers={"content-type": "multipart/form-data; boundary=x"})
    assert broken.status_code in {400, 422}
    form = {"strength": "far"}
    assert refusal(client.post(ROUTE, files={"image": b"1"}, data=form)) == (422, "invalid_request", "strength")


def test_both_kinds_of_body_are_documented(client: httpx.Client) -> None:
    route = client.get("/v1/openapi.json").json()["paths"][ROUTE]["post"]
    assert set(route["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
