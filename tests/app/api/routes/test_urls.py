"""A picture is a URL: whatever a recipe says, its URL says too, and gives the bytes of its picture."""

import random
from typing import Any

import httpx
import numpy as np
import pytest

from app.core import latents
from app.serving.encode import read_recipe
from app.serving.recipe import Recipe

ROUTE = "/v1/images/generations"
PROMPTS = ("a blue cat", "\u00e9t\u00e9 & 100% \u732b?", 'say "cheese",\n#1: now')
SLIDERS = ("rust", "warm & light = ?", "\u732b 100%")
MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def told(chance: random.Random, model: str) -> dict[str, Any]:
    """What a seed's networks are told."""
    if chance.random() < 0.5:
        return {}
    if model == "vivid":
        return {"prompt": chance.choice(PROMPTS), "prompt_mode": "hashed"}
    return chance.choice([{"prompt": chance.choice(PROMPTS)}, {"label": "face"}, {"prompt": "red", "label": "face"}])


def layers(chance: random.Random) -> list[int]:
    return chance.sample(range(4), chance.randint(1, 4))


def point(chance: random.Random, model: str, stored: list[str], depth: int = 0) -> dict[str, Any]:
    """A point of any kind, of so many generations at most."""
    made: dict[str, Any] = {"seed": chance.randrange(2**32)}
    start = chance.choice(["seed", "seed", "latent", "cross"][: 3 + (depth < 2)])
    if start == "cross":
        first, second = (point(chance, model, stored, depth + 1) for _ in range(2))
        made["cross"] = {"first": first, "second": second, "amount": chance.random()}
        if chance.random() < 0.5:
            made["cross"]["layers"] = layers(chance)
    elif start == "latent":
        made["latent"] = chance.choice(stored)
    else:
        made |= told(chance, model)
    if start != "cross" and chance.random() < 0.4:
        made["mix"] = {"seed": chance.randrange(2**32), "layers": layers(chance)}
    if chance.random() < 0.5:
        made["truncation_psi"] = chance.choice([0.0, 1, -2, 1e-7, chance.uniform(-2, 2)])
    if chance.random() < 0.3:
        made["truncation_cutoff"] = chance.randint(0, 4)
    steps = range(chance.choice([0, 0, 1, 3]))
    made["variations"] = [{"seed": chance.randrange(2**32), "strength": chance.random() ** 9} for _ in steps]
    steps = range(chance.choice([0, 0, 1, 3]))
    made["sliders"] = [
        {
            "name": chance.choice(SLIDERS),
            "amount": chance.uniform(-20, 20) * 0.1**index,
            "offset": chance.choice(stored),
        }
        for index in steps
    ]
    return made


@pytest.mark.parametrize("model", ["vivid", "spoken"])
def test_the_url_of_any_recipe_gives_the_bytes_of_its_picture(
    client: httpx.Client, vivid: str, spoken: str, stored: list[str], model: str
) -> None:
    chance = random.Random(model)
    files = set()
    for _ in range(40):
        size = [chance.choice([32, 7, 50]), chance.choice([32, 9])]
        mode = chance.choice(["const", "const", "none", "random"])
        fields = {"model": model, "checkpoint": vivid if model == "vivid" else spoken, "size": size, "noise_mode": mode}
        recipe = fields | point(chance, model, stored)
        output_format, quality = chance.choice(list(MEDIA_TYPES)), chance.choice([None, 0, 100])
        kind = {"output_format": output_format, "output_compression": quality}
        drawn = client.post(ROUTE, json={"recipe": recipe} | kind, headers={"accept": MEDIA_TYPES[output_format]})
        assert drawn.status_code == 200, drawn.text
        said = Recipe.model_validate_json(drawn.headers["x-ganvas-recipe"])
        assert read_recipe(drawn.content) == said == Recipe(**recipe, device=said.device, dtype=said.dtype)
        fetched = client.get(said.url(output_format, quality))
        assert fetched.status_code == 200, fetched.text
        assert fetched.content == drawn.content
        assert fetched.headers["cache-control"].endswith("immutable")
        assert Recipe.model_validate_json(fetched.headers["x-ganvas-recipe"]) == said
        files.add(fetched.content)
    assert len(files) == 40


def test_the_answer_to_a_recipe_has_a_url_that_draws_it_too(
    client: httpx.Client, vivid: str, stored: list[str]
) -> None:
    recipe = {"model": "vivid", "checkpoint": vivid, "seed": 3, "size": [32, 32], "latent": stored[0]}
    (picture,) = client.post(ROUTE, json={"recipe": recipe, "response_format": "url"}).json()["data"]
    assert read_recipe(client.get(picture["url"]).content) == Recipe.model_validate(picture["recipe"])


def test_only_the_checkpoint_of_a_recipe_counts_whatever_its_model_is_called(client: httpx.Client, vivid: str) -> None:
    recipe = {"model": "my old name", "checkpoint": vivid, "seed": 3, "size": [32, 32]}
    (picture,) = client.post(ROUTE, json={"recipe": recipe, "response_format": "url"}).json()["data"]
    assert picture["recipe"]["model"] == "vivid"
    assert client.get(picture["url"]).status_code == 200


def test_a_recipe_of_another_device_is_drawn_on_this_one_and_says_so(client: httpx.Client, vivid: str) -> None:
    recipe = {"model": "vivid", "checkpoint": vivid, "seed": 3, "size": [32, 32], "device": "cuda", "dtype": "float16"}
    (picture,) = client.post(ROUTE, json={"recipe": recipe}).json()["data"]
    usual = client.post(ROUTE, json={"recipe": recipe | {"device": None, "dtype": None}}).json()["data"][0]
    assert picture["recipe"]["device"] == "cpu"
    assert picture == usual


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("latent=" + "0" * 64, "latent_not_found", "recipe"),
        ("latent=" + "A" * 64, "invalid_request", "latent"),
        ("latent=../../etc", "invalid_request", "latent"),
        ("seed=1&variations=7", "invalid_request", "variations"),
        ("seed=1&variations=7:2", "invalid_request", "variations"),
        ("seed=1&variations=7:nan", "invalid_request", "variations"),
        ("seed=1&variations=-1:0.5", "invalid_request", "variations"),
        ("seed=1&variations=" + ",".join(["1:0.5"] * 17), "invalid_request", "variations"),
        ("cross={}", "invalid_request", "cross"),
        ("cross=[[[", "invalid_request", "cross"),
        (
            'cross={"first":{"seed":1},"second":{"seed":2},"amount":0.5}&mix_seed=1&mix_layers=0',
            "invalid_request",
            "recipe",
        ),
        ('cross={"first":{"seed":1},"second":{"seed":2},"amount":2}', "invalid_request", "cross"),
        ('cross={"first":{"seed":1},"second":{"seed":2},"amount":0.5}&prompt=cat', "invalid_request", "recipe"),
        ('cross={"first":{"seed":1},"second":{"seed":2},"amount":0.5,"layers":[9]}', "invalid_request", "cross"),
    ],
)
def test_what_no_recipe_says_is_refused_by_name(
    client: httpx.Client, vivid: str, query: str, code: str, param: str
) -> None:
    answer = client.get(f"/v1/models/vivid/image?{query}")
    assert answer.status_code in {404, 422}
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


@pytest.mark.parametrize("says", [{"seed": 1}, {"prompt": "a cat"}, {"n": 2}, {"model": "vivid"}, {"size": "8x8"}])
def test_what_a_recipe_says_is_not_said_twice(client: httpx.Client, vivid: str, says: dict[str, Any]) -> None:
    recipe = {"model": "vivid", "checkpoint": vivid, "seed": 3, "size": [32, 32]}
    answer = client.post(ROUTE, json={"recipe": recipe} | says)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, next(iter(says)))
    nothing = {"prompt": "", "n": 1, "model": "", "sliders": {}}
    assert client.post(ROUTE, json={"recipe": recipe} | nothing).status_code == 200


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"checkpoint": "0" * 64}, "checkpoint_not_found"),
        ({"latent": "0" * 64}, "latent_not_found"),
        ({"colour": "red"}, "unknown_field"),
        ({"variations": [{"seed": 1, "strength": 0.5}] * 16, "prompt": "\u732b" * 2000}, "invalid_request"),
        ({"sliders": [{"name": "\u732b" * 60, "amount": 1, "offset": "0" * 64}] * 32}, "latent_not_found"),
        ({"size": [4096, 4096]}, "invalid_request"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused(
    client: httpx.Client, vivid: str, fields: dict[str, Any], code: str
) -> None:
    recipe = {"model": "vivid", "checkpoint": vivid, "seed": 3, "size": [32, 32]} | fields
    answer = client.post(ROUTE, json={"recipe": recipe})
    assert answer.status_code in {404, 422}
    assert answer.json()["error"]["code"] == code


def test_a_latent_of_another_model_is_refused(client: httpx.Client, app: Any, vivid: str) -> None:
    odd = latents.store(app.storage, np.ones((4, 8), np.float32))
    with app.db.begin() as session:
        latents.keep(session, app.storage, odd, (4, 8))
    answer = client.get(f"/v1/models/vivid/image?latent={odd}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "latent_does_not_fit")
