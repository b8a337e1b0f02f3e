"""A model that was trained with captions and labels draws what it is told, says which words it knew, and ranks."""

import base64
import io
import json
import zipfile
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from app.core import catalogue
from app.serving.recipe import Recipe
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig, TextConfig
from models.presets import preset
from models.registry import build_discriminator, build_generator

ROUTE = "/v1/images/generations"
TOLD = {"labels": ["face", "apple"], "vocabulary": ["face", "apple", "red", "smiling"], "encoder": "hashed-256"}


def publish(app: Any, name: str, *, judged: bool = True) -> str:
    """Publish untrained networks that take texts; returns the sha256."""
    network = NetworkConfig(
        resolution=32,
        z_dim=16,
        w_dim=16,
        mapping_layers=1,
        generator_widths=(16, 8, 8, 4),
        discriminator_widths=(16, 8, 8),
        generator_norm="none",
        text=TextConfig(encoder="hashed-256", features=256, dim=16),
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator, discriminator = build_generator(network), build_discriminator(network) if judged else None
    config = preset("tiny", 32).model_copy(update={"network": network})
    meta = CheckpointMeta(config=config, kimg=1, minutes=1, captioned=True, vocabulary=tuple(TOLD["vocabulary"]))
    data = save_checkpoint(None, generator, meta, discriminator=discriminator)
    model = {"name": name, "architecture": "dcgan", "resolution": 32, "z_dim": 16, "w_dim": 16, "num_ws": 4} | TOLD
    sha256: str = app.storage.put(data)
    with app.db.begin() as session:
        catalogue.publish(session, model, sha256=sha256, kimg=1.0, bytes_=len(data), metrics={})
    return sha256


@pytest.fixture(scope="module", autouse=True)
def told(app: Any) -> str:
    return publish(app, "told")


def generate(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(ROUTE, json={"model": "told"} | body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def files(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(picture["b64_json"]) for picture in answer["data"]]


def test_a_model_shows_its_labels_and_its_words(client: httpx.Client) -> None:
    shown = client.get("/v1/models/told").json()
    assert (shown["labels"], shown["vocabulary"]) == (TOLD["labels"], TOLD["vocabulary"])
    untold = client.get("/v1/models/tiny").json()
    assert (untold["labels"], untold["vocabulary"]) == ([], [])


def test_the_answer_names_the_words_that_were_known_and_those_that_were_not(client: httpx.Client) -> None:
    answer = generate(client, seed=1, prompt="Smiling RED zebra, red face")
    assert answer["matched_terms"] == ["smiling", "red", "face"]
    assert answer["unknown_terms"] == ["zebra"]
    assert "prompt_mode" not in answer
    assert answer["data"][0]["recipe"]["prompt_mode"] is None
    strange = generate(client, seed=1, prompt="qwertz")
    assert (strange["matched_terms"], strange["unknown_terms"]) == ([], ["qwertz"])
    assert len(files(strange)) == 1
    assert not {"matched_terms", "unknown_terms"} & generate(client, seed=1).keys()


def test_a_prompt_keeps_its_seed_and_draws_another_picture(client: httpx.Client) -> None:
    silent, red, face = (generate(client, seed=4, prompt=prompt) for prompt in (None, "red", "face"))
    label = generate(client, seed=4, label="face")
    assert [answer["data"][0]["seed"] for answer in (silent, red, face, label)] == [4] * 4
    pixels = [pixels_of(answer) for answer in (silent, red, face, label)]
    assert pixels[2] == pixels[3]
    assert len(set(pixels)) == 3


def pixels_of(answer: dict[str, Any]) -> bytes:
    return Image.open(io.BytesIO(files(answer)[0])).tobytes()


def test_a_prompt_without_a_seed_gets_a_random_one(client: httpx.Client) -> None:
    seeds = {generate(client, prompt="red face")["data"][0]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    answer = client.get("/v1/models/told/image", params={"prompt": "red face", "label": "face"})
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
    recipe = Recipe.model_validate_json(client.get(answer.headers["location"]).headers["x-ganvas-recipe"])
    assert (recipe.prompt, recipe.label, recipe.prompt_mode) == ("red face", "face", None)


def test_the_url_of_a_prompted_picture_gives_the_same_bytes(client: httpx.Client) -> None:
    body = {"seed": 6, "prompt": "red \u00e9t\u00e9", "label": "apple", "mix": {"seed": 8, "layers": "2-3"}}
    (picture,) = generate(client, **body, response_format="url")["data"]
    fetched = client.get(picture["url"])
    assert [fetched.content] == files(generate(client, **body))
    assert Recipe.model_validate_json(fetched.headers["x-ganvas-recipe"]) == Recipe.model_validate(picture["recipe"])


def test_an_unknown_label_is_refused_with_the_labels_there_are(client: httpx.Client) -> None:
    for answer in (
        client.post(ROUTE, json={"model": "told", "label": "pear"}),
        client.get("/v1/models/told/image?seed=1&label=pear"),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (422, "label_not_found", "label")
        assert "face, apple" in error["message"]


def test_best_of_answers_the_best_by_match_and_each_is_an_ordinary_picture(client: httpx.Client) -> None:
    everyone = generate(client, prompt="red face", seed=20, n=12, best_of=12)
    assert sorted(picture["seed"] for picture in everyone["data"]) == list(range(20, 32))
    matches = [picture["match"] for picture in everyone["data"]]
    assert matches == sorted(matches, reverse=True)
    assert len(set(matches)) > 1
    best = generate(client, prompt="red face", seed=20, n=3, best_of=12)
    assert best["data"] == everyone["data"][:3]
    for picture, file in zip(best["data"], files(best), strict=True):
        assert files(generate(client, prompt="red face", seed=picture["seed"])) == [file]
    assert best["matched_terms"] == ["red", "face"]


def test_best_of_comes_in_every_form_a_picture_does(client: httpx.Client) -> None:
    body = {"model": "told", "label": "apple", "seed": 50, "best_of": 6}
    best = generate(client, **body, n=2)
    first = client.post(ROUTE, json=body, headers={"accept": "image/png"})
    assert first.content == files(best)[0]
    packed = client.post(ROUTE, json=body | {"n": 2}, headers={"accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == files(best)
    with client.stream("POST", ROUTE, json=body | {"n": 2, "stream": True}) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    shown = ("b64_json", "seed", "recipe", "match")
    assert [[event[name] for name in shown] for event in events] == [[p[name] for name in shown] for p in best["data"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"best_of": 4}, "best_of_needs_prompt"),
        ({"best_of": 4, "prompt": " "}, "best_of_needs_prompt"),
        ({"best_of": 4, "prompt": "a cat", "model": "tiny"}, "best_of_needs_prompt"),
        ({"best_of": 4, "prompt": "red", "n": 5}, "invalid_request"),
        ({"best_of": 65, "prompt": "red"}, "invalid_request"),
        ({"best_of": 4, "prompt": "red", "seeds": "0-3"}, "invalid_request"),
    ],
)
def test_what_cannot_be_ranked_is_refused(client: httpx.Client, body: dict[str, Any], code: str) -> None:
    answer = client.post(ROUTE, json={"model": "told"} | body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, code)
    assert answer.json()["error"]["param"] == "best_of"


def test_weights_saved_without_a_discriminator_draw_and_do_not_rank(client: httpx.Client, app: Any) -> None:
    publish(app, "unjudged", judged=False)
    body = {"model": "unjudged", "prompt": "red face", "seed": 1}
    assert len(files(generate(client, **body))) == 1
    answer = client.post(ROUTE, json=body | {"best_of": 2})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "discriminator_missing")
