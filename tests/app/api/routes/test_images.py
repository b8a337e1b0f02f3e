"""Pictures over HTTP: by seed and by prompt, as JSON, as bytes, as a stream, as a URL."""

import base64
import io
import json
import re
import socket
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.core.settings import Settings
from app.serving.encode import read_recipe
from app.serving.recipe import Recipe

ROUTE = "/v1/images/generations"


def generate(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def files(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(picture["b64_json"]) for picture in answer["data"]]


def count(client: httpx.Client, name: str) -> float:
    """What the metrics say of all models together."""
    found = re.findall(rf"^ganvas_{name}(?:{{.*}})? (\S+)$", client.get("/metrics").text, re.M)
    return sum(map(float, found))


def test_each_picture_comes_with_its_seed_and_its_recipe(client: httpx.Client, app: Any) -> None:
    answer = generate(client, model="tiny", n=3, seed=10, truncation_psi=0.5)
    assert [picture["seed"] for picture in answer["data"]] == [10, 11, 12]
    assert (answer["model"], answer["size"], answer["output_format"]) == ("tiny", "32x32", "png")
    assert "prompt_mode" not in answer
    for picture, file in zip(answer["data"], files(answer), strict=True):
        recipe = Recipe.model_validate(picture["recipe"])
        assert (recipe.checkpoint, recipe.truncation_psi) == (answer["checkpoint"], 0.5)
        assert read_recipe(file) == recipe
    assert len(set(files(answer))) == 3


def test_a_seed_is_chosen_at_random_and_told_where_none_is_given(client: httpx.Client) -> None:
    first, second = generate(client, n=1), generate(client, seed=-1)
    assert first["data"][0]["seed"] != second["data"][0]["seed"]
    again = generate(client, seed=first["data"][0]["seed"])
    assert files(again) == files(first)


@pytest.mark.parametrize("seeds", ["7,1-3", [7, 1, 2, 3]])
def test_seeds_may_be_listed(client: httpx.Client, seeds: Any) -> None:
    answer = generate(client, seeds=seeds)
    assert [picture["seed"] for picture in answer["data"]] == [7, 1, 2, 3]
    assert files(answer)[1:] == files(generate(client, seed=1, n=3))


def test_null_is_absent_and_fields_of_other_services_are_ignored(client: httpx.Client) -> None:
    nulls = dict.fromkeys(("model", "prompt", "n", "seeds", "truncation_psi", "mix", "size", "stream", "quality"))
    assert files(generate(client, seed=3, **nulls, steps=20, sampler_name="Euler")) == files(generate(client, seed=3))


def test_a_prompt_moves_the_seed_of_a_model_without_captions_and_says_so(client: httpx.Client) -> None:
    cat, same, dog = (generate(client, seed=4, prompt=prompt) for prompt in ("a cat", " A  cat", "a dog"))
    assert cat["prompt_mode"] == "hashed"
    pixels = [Image.open(io.BytesIO(files(answer)[0])).tobytes() for answer in (cat, same, dog)]
    assert pixels[0] == pixels[1] != pixels[2]
    assert "prompt_mode" not in generate(client, seed=4, prompt="  ")


def test_a_prompt_without_a_seed_is_always_the_same_picture(client: httpx.Client) -> None:
    first, again, other = (generate(client, prompt=prompt) for prompt in ("a cat", "a cat", "a dog"))
    assert files(first) == files(again) != files(other)
    fetched = client.get("/v1/models/tiny/image", params={"prompt": "a cat"})
    assert (fetched.status_code, fetched.content) == (200, files(first)[0])
    assert files(generate(client, prompt="a cat", seed=-1)) != files(first)


def test_what_a_form_left_blank_is_absent(client: httpx.Client) -> None:
    fetched = client.get("/v1/models/tiny/image?seed=42&psi=0.7&label=&prompt=&size=&format=png")
    assert fetched.content == client.get("/v1/models/tiny/image?seed=42").content


def test_an_alias_and_no_name_at_all_mean_the_default_model(client: httpx.Client) -> None:
    for body in ({"model": "gpt-image-1"}, {"model": ""}, {}):
        assert generate(client, seed=1, **body)["model"] == "tiny"


def test_the_url_of_a_picture_gives_the_same_bytes(client: httpx.Client, app: Any) -> None:
    body = {"seed": 6, "prompt": "\u00e9t\u00e9", "truncation_psi": -0.25, "truncation_cutoff": 2, "size": "80x40"}
    body |= {"mix": {"seed": 8, "layers": "2-3"}, "output_format": "webp", "output_compression": 50}
    inline = generate(client, **body)
    (picture,) = generate(client, **body, response_format="url")["data"]
    assert "b64_json" not in picture
    assert picture["url"].startswith(app.url)
    fetched = client.get(picture["url"])
    assert fetched.headers["content-type"] == "image/webp"
    assert [fetched.content] == files(inline)
    assert Recipe.model_validate_json(fetched.headers["x-ganvas-recipe"]) == Recipe.model_validate(picture["recipe"])


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/jpeg"])
def test_accept_gives_the_bytes_themselves(client: httpx.Client, media_type: str) -> None:
    answer = client.post(ROUTE, json={"seed": 2}, headers={"accept": media_type})
    assert answer.headers["content-type"] == media_type
    assert Image.open(io.BytesIO(answer.content)).get_format_mimetype() == media_type
    assert Recipe.model_validate_json(answer.headers["x-ganvas-recipe"]) == read_recipe(answer.content)


def test_many_pictures_come_raw_in_a_zip_only(client: httpx.Client) -> None:
    answer = client.post(ROUTE, json={"seed": 5, "n": 3}, headers={"accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["00-5.png", "01-6.png", "02-7.png"]
        assert [archive.read(name) for name in archive.namelist()] == files(generate(client, seed=5, n=3))
    refused = client.post(ROUTE, json={"n": 2}, headers={"accept": "image/png"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "accept_zip")


def test_minimal_metadata_leaves_the_recipe_out_of_the_file(client: httpx.Client) -> None:
    (file,) = files(generate(client, seed=2, metadata="minimal"))
    assert read_recipe(file) is None


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"sliders": {"smile": 1.0}}, "direction_not_found", "sliders"),
        ({"label": "cat"}, "label_not_found", "label"),
        ({"output_format": "wav"}, "invalid_request", "output_format"),
        ({"output_format": "txt"}, "invalid_request", "output_format"),
        ({"size": "99999x1"}, "invalid_request", "size"),
        ({"seeds": "9-1"}, "invalid_request", "seeds"),
        ({"seeds": "0-99"}, "invalid_request", "seeds"),
        ({"seed": 2**32}, "invalid_request", "seed"),
        ({"mix": {"seed": 1, "layers": "0-9"}}, "invalid_request", "mix"),
        ({"mix": {"seed": 1, "layers": "x"}}, "invalid_request", "mix"),
        ({"mix": {"seed": 1, "layers": []}}, "invalid_request", "mix"),
        ({"mix": {"seed": 1, "layers": [999]}}, "invalid_request", "mix"),
        ({"stream": True, "mix": {"seed": 1, "layers": "9"}}, "invalid_request", "mix"),
        ({"model": "nobody"}, "model_not_found", "model"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(
    client: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    answer = client.post(ROUTE, json=body)
    assert answer.status_code in {404, 422}
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)


def test_empty_sliders_and_keep_false_are_nothing_special(client: httpx.Client) -> None:
    assert files(generate(client, seed=1, sliders={}, keep=False)) == files(generate(client, seed=1))


def test_a_stream_sends_openai_events(client: httpx.Client) -> None:
    expected = files(generate(client, seed=30, n=2))
    with client.stream("POST", ROUTE, json={"seed": 30, "n": 2, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["image_generation.completed"] * 2
    assert [base64.b64decode(event["b64_json"]) for event in events] == expected
    assert all(event["size"] == "32x32" and event["created_at"] for event in events)


def test_a_pinned_url_is_immutable_and_any_other_short_lived(client: httpx.Client, app: Any) -> None:
    bare = client.get("/v1/models/tiny/image?seed=1&psi=0.7")
    pinned = client.get(f"/v1/models/tiny%40{generate(client)['checkpoint'][:12]}/image?seed=1")
    assert bare.headers["cache-control"] == "public, max-age=5"
    assert pinned.headers["cache-control"] == "public, max-age=31536000, immutable"
    recipe = Recipe.model_validate_json(pinned.headers["x-ganvas-recipe"])
    assert bare.headers["etag"] == pinned.headers["etag"] == f'"{recipe.hash()}.png"'
    assert bare.content == pinned.content


def test_a_picture_the_client_has_is_304_without_a_pass(client: httpx.Client) -> None:
    url = "/v1/models/tiny/image?seed=77"
    etag = client.get(url).headers["etag"]
    painted = count(client, "pictures_painted_total")
    for tags in (etag, f'"other", W/{etag}', "*"):
        answer = client.get(url, headers={"if-none-match": tags})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert count(client, "pictures_painted_total") == painted
    assert client.get(url, headers={"if-none-match": '"other"'}).status_code == 200


def test_every_file_of_a_recipe_has_an_etag_of_its_own(client: httpx.Client) -> None:
    kinds = ("png", "jpeg", "webp", "webp&compression=30", "webp&compression=31")
    answers = [client.get(f"/v1/models/tiny/image?seed=1&format={kind}") for kind in kinds]

    assert len({answer.headers["etag"] for answer in answers}) == len({answer.content for answer in answers}) == 5
    assert client.get("/v1/models/tiny/image?seed=1&compression=30").headers["etag"] == answers[0].headers["etag"]


def test_a_head_tells_all_but_the_picture(client: httpx.Client) -> None:
    url = "/v1/models/tiny/image?seed=5"
    told, sent = client.head(url), client.get(url)

    assert told.status_code == 200
    assert told.content == b""
    for name in ("etag", "cache-control", "content-type", "content-length", "x-ganvas-recipe"):
        assert told.headers[name] == sent.headers[name]
    assert client.head("/v1/models/tiny/image?psi=9").status_code == 422


def test_the_same_url_twice_costs_one_pass(start_app: Any, tmp_path: Path) -> None:
    with start_app(Settings(data=tmp_path, threads=1, max_batch=8)) as running, running.client() as client:
        running.publish("tiny")
        first, second = (client.get("/v1/models/tiny/image?seed=9").content for _ in range(2))
        assert first == second
        generate(client, model="tiny", seed=9)
        assert count(client, "pictures_painted_total") == 1
        assert count(client, "cache_hits_total") == 2


@pytest.mark.parametrize("query", ["psi=0.3&size=64x64", "seed=-1&psi=0.3&size=64x64"])
def test_a_missing_seed_redirects_to_a_chosen_one(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/models/tiny/image?{query}")
    assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
    drawn = client.get(answer.headers["location"])
    recipe = Recipe.model_validate_json(drawn.headers["x-ganvas-recipe"])
    assert (recipe.truncation_psi, recipe.size) == (0.3, (64, 64))
    assert Image.open(io.BytesIO(drawn.content)).size == (64, 64)


def test_a_picture_is_the_same_alone_and_among_others(client: httpx.Client) -> None:
    urls = [f"/v1/models/tiny/image?seed={seed}&psi=0.{seed % 10}" for seed in range(48)]
    alone = [client.get(url).content for url in urls]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda url: client.get(url).content, urls))
    assert together == alone


def test_more_pictures_than_may_wait_are_429(start_app: Callable[[Settings], Any], tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, threads=1, max_batch=2, max_waiting_pictures=2, default_model="tiny")
    with start_app(settings) as running, running.client() as client:
        running.publish("tiny")
        answer = client.post(ROUTE, json={"n": 3})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.post(ROUTE, json={"n": 2}).status_code == 200


def test_the_picture_of_a_client_who_left_is_never_painted(client: httpx.Client, app: Any) -> None:
    app.publish("slow to load", width=12)  # other networks than before: their batch sizes are measured first
    painted = count(client, "pictures_painted_total")
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /v1/models/slow%20to%20load/image?seed=1 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        wait_for(lambda: count(client, "pictures_waiting") == 1)
    wait_for(lambda: count(client, "pictures_waiting") == 0)
    assert client.get("/v1/models/slow%20to%20load/image?seed=2").status_code == 200
    assert count(client, "pictures_painted_total") == painted + 1


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
