"""Artworks over HTTP: pictures and renders are kept, found again and ordered, and outlive their model."""

import base64
import io
import json
import threading
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.core import jobs
from app.serving.encode import read_recipe
from app.serving.film import FilmRecipe
from app.serving.point import Point
from app.serving.recipe import Recipe

ROUTE = "/v1/artworks"
DRAW = "/v1/images/generations"
UNKNOWN = "0123456789ab" + "c" * 52


def keep(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Keep a picture of `tiny`, or whatever the body says; the artwork."""
    if body.keys().isdisjoint({"recipe", "render"}):
        body["recipe"] = recipe(client, seed=body.pop("seed", 1))
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == 201, answer.text
    kept: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{ROUTE}/{kept['id']}"
    assert client.get(answer.headers["location"]).json() == kept
    return kept


def recipe(client: httpx.Client, **asked: Any) -> dict[str, Any]:
    """The recipe of a picture that is not drawn for it."""
    answer = client.post(DRAW, json={"model": "tiny", "response_format": "url"} | asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()["data"][0]["recipe"]
    return told


def listed(client: httpx.Client, **query: Any) -> list[str]:
    answer = client.get(ROUTE, params=query)
    assert answer.status_code == 200, answer.text
    return [artwork["id"] for artwork in answer.json()["data"]]


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def finish(app: Any, kind: str = "render", **result: Any) -> str:
    """A job that has succeeded, with this result."""
    with app.db.begin() as session:
        job = jobs.submit(session, kind, {"kind": "loop"})  # type: ignore[arg-type]
    claim = jobs.claim(app.db, job.id, threading.Event())
    assert claim is not None
    claim.finish("succeeded", message="Done.", result=result)
    claim.leave()
    return job.id


def loop(checkpoint: str, *points: Point, model: str = "tiny") -> FilmRecipe:
    about = {"kind": "loop", "path": "linear", "space": "w", "easing": "linear", "fps": 24, "frames": 8}
    return FilmRecipe(model=model, checkpoint=checkpoint, keyframes=points, size=(96, 64), **about)


def drawn(app: Any, film: FilmRecipe, content: bytes) -> dict[str, Any]:
    """What the job of a film ends with."""
    return {
        "file": app.storage.put(content),
        "media_type": "video/mp4",
        "format": "mp4",
        "bytes": len(content),
        "size": "96x64",
        "recipe": film.model_dump(mode="json"),
    }


def test_each_picture_of_a_request_is_kept_as_it_was_sent(client: httpx.Client) -> None:
    body = {"model": "tiny", "seed": 42, "n": 2, "output_format": "webp", "metadata": "minimal", "keep": True}
    pictures = client.post(DRAW, json=body).json()["data"]
    assert len({picture["artwork"] for picture in pictures}) == 2
    for picture in pictures:
        artwork = client.get(f"{ROUTE}/{picture['artwork']}").json()
        assert client.get(artwork["url"]).content == base64.b64decode(picture["b64_json"])
        found = Recipe.model_validate(artwork["recipe"])
        assert (found, found.hash()) == (Recipe.model_validate(picture["recipe"]), artwork["recipe_hash"])
        assert artwork["title"] == f"tiny, seed {picture['seed']}"
        assert (artwork["kind"], artwork["relation"], artwork["job"]) == ("picture", None, None)
        assert (artwork["media_type"], artwork["width"], artwork["height"]) == ("image/webp", 32, 32)
        assert (artwork["model"], artwork["starred"], artwork["tags"]) == ("tiny", False, [])


def test_a_picture_that_comes_as_a_url_is_kept_too(client: httpx.Client) -> None:
    body = {"model": "tiny", "seed": 43, "response_format": "url", "keep": True}
    (picture,) = client.post(DRAW, json=body).json()["data"]
    assert "b64_json" not in picture
    assert client.get(f"{ROUTE}/{picture['artwork']}/file").content == client.get(picture["url"]).content


def test_raw_bytes_and_zips_name_their_artworks_in_a_header(client: httpx.Client) -> None:
    body = {"model": "tiny", "seed": 44, "keep": True}
    one = client.post(DRAW, json=body, headers={"accept": "image/png"})
    assert client.get(f"{ROUTE}/{one.headers['x-ganvas-artwork']}/file").content == one.content
    many = client.post(DRAW, json=body | {"n": 3}, headers={"accept": "application/zip"})
    ids = many.headers["x-ganvas-artwork"].split(", ")
    with zipfile.ZipFile(io.BytesIO(many.content)) as archive:
        files = [archive.read(name) for name in archive.namelist()]
    assert [client.get(f"{ROUTE}/{artwork}/file").content for artwork in ids] == files
    assert "x-ganvas-artwork" not in client.post(DRAW, json={"seed": 1}, headers={"accept": "image/png"}).headers


def test_every_picture_of_a_stream_comes_with_its_artwork(client: httpx.Client) -> None:
    body = {"model": "tiny", "seed": 45, "n": 2, "keep": True, "stream": True}
    with client.stream("POST", DRAW, json=body) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert len(events) == 2
    for event in events:
        assert client.get(f"{ROUTE}/{event['artwork']}/file").content == base64.b64decode(event["b64_json"])


def test_nothing_is_kept_unless_it_is_wanted(client: httpx.Client) -> None:
    before = listed(client, limit=1)
    for body in ({}, {"keep": False}, {"keep": None}):
        assert "artwork" not in client.post(DRAW, json={"model": "tiny", "seed": 1} | body).json()["data"][0]
    assert listed(client, limit=1) == before


def test_a_recipe_is_drawn_and_kept_under_what_is_said_of_it(client: httpx.Client) -> None:
    asked = recipe(client, seed=7, prompt="a  red\tcat", size="64x48")
    kept = keep(client, recipe=asked, tags=["Night", "moss", "night "], starred=True, output_format="jpeg")
    assert (kept["title"], kept["tags"], kept["starred"]) == ('tiny, "a red cat", seed 7', ["moss", "night"], True)
    assert (kept["media_type"], kept["width"], kept["height"]) == ("image/jpeg", 64, 48)
    file = client.get(kept["url"]).content
    assert len(file) == kept["bytes"]
    assert read_recipe(file) == Recipe.model_validate(asked)
    assert keep(client, recipe=asked, title="  A title ")["title"] == "A title"


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"checkpoint": UNKNOWN}, (404, "checkpoint_not_found", "recipe")),
        ({"latent": UNKNOWN}, (404, "latent_not_found", "recipe")),
        ({"variations": [{"seed": 1, "strength": 2}]}, (422, "invalid_request", "recipe.variations.0.strength")),
        ({"more": 1}, (422, "unknown_field", "recipe.more")),
        ({"checkpoint": "../etc"}, (422, "invalid_request", "recipe.checkpoint")),
        ({"mix": {"seed": 1, "layers": [9]}}, (422, "invalid_request", "mix")),
        ({"keyframes": []}, (422, "picture_expected", "recipe")),
    ],
)
def test_a_recipe_that_cannot_be_drawn_here_is_refused(
    client: httpx.Client, change: dict[str, Any], refused: tuple[int, str, str]
) -> None:
    assert refusal(client.post(ROUTE, json={"recipe": recipe(client, seed=1) | change})) == refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"recipe": {}, "render": "job_1"}, None),
        ({"recipe": "art_1"}, "recipe"),
        ({"render": "job_1", "tags": ["x" * 61]}, "tags.0"),
        ({"render": "job_1", "tags": [" "]}, "tags.0"),
        ({"render": "job_1", "tags": ["x"] * 33}, "tags"),
        ({"render": "job_1", "title": "a\0b"}, "title"),
        ({"render": "job_1", "title": " "}, "title"),
        ({"render": "job_1", "rating": 5}, "rating"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(client: httpx.Client, body: dict[str, Any], param: str | None) -> None:
    assert refusal(client.post(ROUTE, json=body))[::2] == (422, param)


def test_a_body_that_never_ends_is_no_recipe(client: httpx.Client) -> None:
    opened = '{"cross":{"first":' * 40_000
    for body in (f'{{"recipe":{opened}', f'{{"recipe":{opened}1{"}}" * 40_000}}}', "[" * 500_000):
        answer = client.post(ROUTE, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}


def test_the_film_of_a_render_is_kept_and_stays_with_its_job(client: httpx.Client, app: Any) -> None:
    checkpoint = recipe(client, seed=1)["checkpoint"]
    film = loop(checkpoint, Point(seed=1), Point(seed=2), Point(seed=3))
    job = finish(app, **drawn(app, film, b"a film"))
    kept = keep(client, render=job, tags=["loop"])
    assert (kept["kind"], kept["relation"], kept["job"]) == ("film", "loop", job)
    assert (kept["title"], kept["media_type"]) == ("tiny, loop of 3 keyframes", "video/mp4")
    assert (kept["width"], kept["height"], kept["bytes"]) == (96, 64, 6)
    assert kept["recipe_hash"] == film.hash()
    assert client.get(kept["url"]).content == b"a film"
    client.delete(f"{ROUTE}/{kept['id']}")
    assert app.storage.get(app.storage.put(b"a film")) == b"a film"
    assert keep(client, render=job)["id"] != kept["id"]


def test_the_sheet_of_a_render_is_a_sheet(client: httpx.Client, app: Any) -> None:
    points = (Point(seed=0),)
    checkpoint = recipe(client, seed=1)["checkpoint"]
    sheet = FilmRecipe(
        kind="grid", model="tiny", checkpoint=checkpoint, keyframes=points, seeds=(1, 2), columns=2, size=(32, 32)
    )
    kept = keep(client, render=finish(app, **drawn(app, sheet, b"a sheet") | {"media_type": "image/png"}))
    assert (kept["kind"], kept["relation"], kept["title"]) == ("sheet", "grid", "tiny, sheet of 2 seeds")


def test_only_what_a_render_has_finished_is_kept(client: httpx.Client, app: Any) -> None:
    with app.db.begin() as session:
        waiting = jobs.submit(session, "render", {"kind": "loop"}).id
    try:
        assert refusal(client.post(ROUTE, json={"render": waiting})) == (409, "job_state_conflict", None)
    finally:
        client.post(f"/v1/jobs/{waiting}/cancel")
    assert refusal(client.post(ROUTE, json={"render": "job_nobody"}))[:2] == (404, "job_not_found")
    picture = finish(app, "project", recipe=recipe(client, seed=1), file="a" * 64)
    answer = client.post(ROUTE, json={"render": picture})
    assert refusal(answer) == (422, "render_not_kept", "render")
    assert "send it as recipe" in answer.json()["detail"]
    assert "send it" not in client.post(ROUTE, json={"render": finish(app, "train")}).json()["detail"]


def test_artworks_are_found_by_what_is_said_of_them(client: httpx.Client) -> None:
    one = keep(client, seed=1, tags=["found", "moss"], starred=True, title="100% green")["id"]
    two = keep(client, recipe=recipe(client, seed=2, prompt="A red cat"), tags=["found"])["id"]
    three = keep(client, seed=3, tags=["found", "moss"])["id"]
    assert listed(client, tag="found") == [three, two, one]
    assert listed(client, tag="found", order="asc") == [one, two, three]
    assert listed(client, tag=["found", "Moss"]) == [three, one]
    assert listed(client, tag="found", starred="true") == [one]
    assert listed(client, tag="found", q="RED") == listed(client, tag="found", q="cat a") == [two]
    assert listed(client, tag="found", q="100%") == [one]
    assert listed(client, tag="found", model="tiny") == [three, two, one]
    assert listed(client, tag="found", model="other") == []
    kept = client.get(f"{ROUTE}/{two}").json()["created_at"]
    after = (datetime.fromisoformat(kept) + timedelta(microseconds=1)).isoformat()
    assert listed(client, tag="found", since=kept) == [three, two]
    assert listed(client, tag="found", since=after) == [three]
    assert listed(client, tag="found", until=after) == [two, one]
    first = client.get(ROUTE, params={"tag": "found", "limit": 2}).json()
    assert (first["has_more"], first["last_id"], first["data"][0]["tags"]) == (True, two, ["found", "moss"])
    assert listed(client, tag="found", limit=2, after=two) == [one]


@pytest.mark.parametrize(
    "query",
    ["tags=moss", "since=2026-01-31T00:00", "limit=0", "after=art_nobody", "tag=", "starred=perhaps", "order=a"],
)
def test_a_search_that_means_nothing_is_refused(client: httpx.Client, query: str) -> None:
    assert client.get(f"{ROUTE}?{query}").status_code == 422


def test_star_tags_and_title_are_the_artists(client: httpx.Client) -> None:
    kept = keep(client, seed=11, tags=["old"])
    path = f"{ROUTE}/{kept['id']}"
    changed = client.patch(path, json={"starred": True, "title": "Evening"}).json()
    assert changed == kept | {"starred": True, "title": "Evening"}
    changed = client.patch(path, json={"tags": ["b", "A", "a"], "starred": None}).json()
    assert changed == kept | {"starred": True, "title": "Evening", "tags": ["a", "b"]}
    assert client.get(path).json() == changed == client.patch(path, json={}).json()
    assert listed(client, q="evening a b") == [kept["id"]]
    assert client.patch(path, json={"tags": []}).json()["tags"] == []
    for body, param in (({"star": True}, "star"), ({"title": ""}, "title"), ({"recipe": {}}, "recipe")):
        assert refusal(client.patch(path, json=body))[::2] == (422, param)


def test_a_deleted_artwork_is_gone_with_its_file(client: httpx.Client, app: Any) -> None:
    one, two = (keep(client, seed=12, output_format="webp") for _ in range(2))
    paths = [f"{ROUTE}/{kept['id']}" for kept in (one, two)]
    blob = client.get(two["url"]).headers["etag"].strip('"')
    assert client.delete(paths[0]).json() == {"id": one["id"], "object": "artwork", "deleted": True}
    assert client.get(two["url"]).status_code == 200
    client.delete(paths[1])
    assert not app.storage.root.joinpath("sha256", blob[:2], blob).exists()
    for ask in (client.get, client.delete):
        assert refusal(ask(paths[1])) == (404, "artwork_not_found", "artwork")
    for path in (f"{paths[1]}/file", f"{paths[1]}/family"):
        assert refusal(client.get(path))[:2] == (404, "artwork_not_found")
    assert refusal(client.patch(paths[1], json={}))[:2] == (404, "artwork_not_found")


def test_a_picture_that_is_being_looked_for_outlives_its_artwork(client: httpx.Client, app: Any) -> None:
    kept = keep(client, seed=13)
    blob = client.get(kept["url"]).headers["etag"].strip('"')
    with app.db.begin() as session:
        job = jobs.submit(session, "project", {"target": blob})
    assert client.delete(f"{ROUTE}/{kept['id']}").status_code == 200
    assert app.storage.path(blob).exists()
    with app.db.begin() as session:
        jobs.cancel(session, job.id)


def test_a_file_is_sent_once_to_who_keeps_it_and_in_parts_to_who_wants_some(client: httpx.Client) -> None:
    url = keep(client, seed=13)["url"]
    whole = client.get(url)
    etag = whole.headers["etag"]
    assert whole.headers["content-type"] == "image/png"
    again = client.get(url, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    part = client.get(url, headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, whole.content[1:4])


def test_a_kept_artwork_survives_its_model(client: httpx.Client, app: Any) -> None:
    app.publish("doomed", seed=9_173)  # weights that no other test has
    body = {"model": "doomed", "seed": 3, "keep": True}
    (picture,) = client.post(DRAW, json=body).json()["data"]
    path = f"{ROUTE}/{picture['artwork']}"
    (near,) = client.post("/v1/images/variations", json={"of": picture["artwork"], "keep": True}).json()["data"]
    before = client.get(path).json()
    assert client.delete("/v1/models/doomed").status_code == 200
    assert client.get(path).json() == before
    assert client.get(before["url"]).content == base64.b64decode(picture["b64_json"])
    assert set(listed(client, model="doomed")) == {picture["artwork"], near["artwork"]}
    assert client.delete(path).status_code == 200
    family = client.get(f"{ROUTE}/{near['artwork']}/family").json()
    assert [(node["artwork"], node["url"]) for node in family["nodes"]] == [
        (near["artwork"], f"{ROUTE}/{near['artwork']}/file"),
        (None, None),
    ]
    answer = client.post("/v1/images/variations", json={"of": near["artwork"]})
    assert refusal(answer) == (404, "checkpoint_not_found", "of")


def test_a_family_is_told_in_both_directions_kept_or_not(client: httpx.Client, app: Any) -> None:
    root = recipe(client, seed=5000)
    once = root | {"variations": [{"seed": 1, "strength": 0.3}]}
    twice = once | {"variations": [*once["variations"], {"seed": 2, "strength": 0.3}]}
    last = keep(client, recipe=twice | {"size": [64, 64]}, title="last")
    checkpoint = root["checkpoint"]
    film = loop(checkpoint, Point(seed=5000), Point(seed=5001))
    moving = keep(client, render=finish(app, **drawn(app, film, b"a family's film")))
    first = keep(client, recipe=root, title="first")  # later than what was made of it

    assert (last["relation"], first["relation"]) == ("variation", None)
    told = client.get(f"{ROUTE}/{first['id']}/family").json()
    nodes = {node["recipe_hash"]: node for node in told["nodes"]}
    between = Recipe.model_validate(once | {"size": [64, 64]})
    assert (told["artwork"], told["recipe_hash"], told["complete"]) == (first["id"], first["recipe_hash"], True)
    assert {node["artwork"] for node in nodes.values()} == {first["id"], last["id"], moving["id"], None}
    assert nodes[between.hash()] == {
        "recipe_hash": between.hash(),
        "artwork": None,
        "title": "tiny, seed 5000, variation 1",
        "relation": "variation",
        "recipe": json.loads(between.canonical_json()),
        "url": between.url(),
    }
    assert client.get(between.url()).status_code == 200
    edges = {(edge["parent"], edge["child"], edge["relation"]) for edge in told["edges"]}
    assert edges == {
        (first["recipe_hash"], between.hash(), "variation"),
        (between.hash(), last["recipe_hash"], "variation"),
        (first["recipe_hash"], film.hash(), "loop"),
    }
    back = client.get(f"{ROUTE}/{last['id']}/family").json()
    assert [node["artwork"] for node in back["nodes"]] == [last["id"], None, first["id"]]
    assert [node["title"] for node in client.get(f"{ROUTE}/{moving['id']}/family").json()["nodes"]] == [
        "tiny, loop of 2 keyframes",
        "first",
        "tiny, seed 5001",
    ]


def test_an_artwork_is_dated_in_utc(client: httpx.Client) -> None:
    kept = datetime.fromisoformat(keep(client, seed=41)["created_at"])
    assert abs(kept - datetime.now(UTC)) < timedelta(minutes=1)
