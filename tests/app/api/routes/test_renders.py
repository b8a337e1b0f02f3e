"""Renders over HTTP: what can be drawn becomes a job with a file, and what cannot is refused with the reason."""

import io
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from app.core import jobs
from app.serving.film import FilmRecipe
from app.serving.films.reading import facts
from worker import tasks

ROUTE = "/v1/renders"
VARIED = {"seed": 1, "variations": [{"seed": 5, "strength": 0.5}]}
TWO = [{"seed": 1}, {"seed": 2}]


@pytest.fixture(scope="module", autouse=True)
def grown(app: Any) -> list[str]:
    """A model with three checkpoints, and another one."""
    app.publish("other", seed=9)
    return [app.publish("grown", seed=seed, kimg=float(seed)) for seed in (1, 2, 3)]


@pytest.fixture
def work(app: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Does the worker's part of a render here."""
    monkeypatch.setenv("GANVAS_DATA", str(app.settings.data))
    monkeypatch.setenv("GANVAS_THREADS", "1")
    return tasks.render


def submit(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Ask for a render; its job."""
    answer = client.post(ROUTE, json={"model": "tiny"} | body)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    job: dict[str, Any] = answer.json()
    return job


def film_of(client: httpx.Client, **body: Any) -> FilmRecipe:
    """What would be drawn; it is not, for no worker listens here."""
    job = submit(client, **body)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    return FilmRecipe.model_validate(job["request"]["film"])


def test_a_loop_becomes_a_job_and_then_a_file(client: httpx.Client, work: Callable[[str], None]) -> None:
    job = submit(client, kind="loop", seeds="0-2", seconds=1, fps=12, format="webm")
    assert (job["kind"], job["status"]) == ("render", "queued")
    early = client.get(f"{ROUTE}/{job['id']}/file")
    assert (early.status_code, early.json()["error"]["code"]) == (404, "render_not_found")
    assert "queued" in early.json()["error"]["message"]
    unseen = client.get(f"{ROUTE}/{job['id']}/preview")
    assert (unseen.status_code, unseen.json()["error"]["code"]) == (404, "preview_not_found")
    work(job["id"])
    done = client.get(f"/v1/jobs/{job['id']}").json()
    result = done["result"]
    assert (done["status"], result["frames"], result["fps"], result["size"]) == ("succeeded", 12, 12, "32x32")
    answer = client.get(result["url"])
    assert answer.headers["content-type"] == "video/webm"
    assert answer.headers["content-disposition"] == f'inline; filename="tiny-loop-{job["id"][4:12]}.webm"'
    found = facts(answer.content)
    assert (found.frames, found.size) == (12, (32, 32))
    again = client.get(result["url"], headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    part = client.get(result["url"], headers={"range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, answer.content[:100])
    preview = client.get(f"{ROUTE}/{job['id']}/preview")
    with Image.open(io.BytesIO(preview.content)) as picture:
        assert (picture.format, picture.size) == ("WEBP", (32, 32))
    etag = {"if-none-match": preview.headers["etag"]}
    assert client.get(f"{ROUTE}/{job['id']}/preview", headers=etag).status_code == 304
    assert job["id"] in {each["id"] for each in client.get("/v1/jobs", params={"kind": "render"}).json()["data"]}


def test_a_long_render_shows_what_it_paints_until_it_is_canceled(
    client: httpx.Client, work: Callable[[str], None]
) -> None:
    job = submit(client, kind="walk", seeds="0-9", seconds=120, fps=60, format="webp")["id"]
    worker = threading.Thread(target=work, args=(job,))
    worker.start()
    while client.get(f"{ROUTE}/{job}/preview").status_code == 404:
        time.sleep(0.05)
    shown = client.get(f"/v1/jobs/{job}").json()
    assert (shown["status"], 0 < shown["progress"] < 1) == ("running", True)
    assert "of 7200" in shown["message"]
    client.post(f"/v1/jobs/{job}/cancel")
    worker.join(timeout=20)
    assert client.get(f"/v1/jobs/{job}").json()["status"] == "canceled"
    assert client.get(f"{ROUTE}/{job}/file").status_code == 404


def test_a_kept_sheet_is_an_artwork_whose_recipe_is_a_keyframe_too(
    client: httpx.Client, work: Callable[[str], None]
) -> None:
    job = submit(client, kind="grid", seeds="0-3", keep=True)
    work(job["id"])
    result = client.get(f"/v1/jobs/{job['id']}").json()["result"]
    assert client.get(f"/v1/artworks/{result['artwork']}").json()["recipe"]["kind"] == "grid"
    refused = client.post(ROUTE, json={"kind": "loop", "keyframes": [result["artwork"], {"seed": 1}]})
    assert refused.status_code == 422  # a sheet is no place
    picture = client.post("/v1/images/generations", json={"model": "tiny", "seed": 7, "keep": True}).json()["data"][0]
    film = film_of(client, kind="walk", keyframes=[picture["artwork"], picture["recipe"] | {"seed": 8}, {"seed": 9}])
    assert [point.seed for point in film.keyframes] == [7, 8, 9]


def test_defaults_are_written_out(client: httpx.Client) -> None:
    film = film_of(client, kind="loop")
    assert (film.frames, film.fps, film.path, film.space, film.easing) == (96, 24, "slerp", "z", "in_out_sine")
    assert (len(film.keyframes), film.size, film.keyframes[0].truncation_psi) == (4, (32, 32), 0.7)
    assert len({point.seed for point in film.keyframes}) == 4
    spline = film_of(client, kind="loop", space="w", seeds="1,2")
    assert (spline.path, spline.easing) == ("spline", "linear")
    noise = film_of(client, kind="loop", path="noise", seeds=[5])
    assert (noise.radius, noise.easing, len(noise.keyframes)) == (1.0, None, 1)
    varied = film_of(client, kind="walk", keyframes=[VARIED, {"seed": 2}], truncation_psi=0.5)
    assert (varied.path, varied.space, varied.keyframes[0].truncation_psi) == ("spline", "w", 0.5)
    job = submit(client, kind="grid", seeds="0-8")
    assert (job["request"]["format"], job["request"]["film"]["columns"]) == ("png", 3)
    assert submit(client, kind="loop", phase=3)["request"]["choose_phase"] is False


def test_a_growth_takes_all_checkpoints_and_a_comparison_those_named(client: httpx.Client, grown: list[str]) -> None:
    film = film_of(client, kind="growth", model="grown", seeds="0-3")
    assert (list(film.checkpoints), film.checkpoint, film.columns) == (grown, grown[-1], 2)
    assert film_of(client, kind="growth", model=f"grown@{grown[1]}").checkpoints == tuple(grown[:2])
    short = film_of(client, kind="growth", model="grown", seconds=2 / 24)
    assert short.checkpoints == (grown[0], grown[-1])
    sheet = film_of(client, kind="growth", model="grown", seeds="0-3", format="png")
    assert (sheet.kind, list(sheet.checkpoints), sheet.columns, sheet.frames) == ("grid", grown, 4, 1)
    two = film_of(client, kind="grid", model="grown", checkpoints=[grown[0][:12], grown[2]], seeds="1-3")
    assert (two.checkpoints, two.columns) == ((grown[0], grown[2]), 3)
    models = film_of(client, kind="grid", model=None, models=["grown", "other"], seeds=[1])
    assert (models.models, models.model, models.columns) == (("grown", "other"), "other", 2)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"kind": "film"}, "invalid_request", "kind"),
        ({"kind": "loop", "color": 1}, "unknown_field", "color"),
        ({"kind": "loop", "columns": 2}, "field_does_not_fit", "columns says nothing to a kind loop"),
        ({"kind": "growth", "model": "grown", "format": "png", "fps": 2}, "field_does_not_fit", "growth as png"),
        ({"kind": "loop", "easing": "bouncy"}, "invalid_request", "no easing 'bouncy'; there are linear, "),
        ({"kind": "loop", "seconds": 400}, "invalid_request", "9,600 frames; a film has at most 7,200"),
        ({"kind": "loop", "seeds": [1]}, "invalid_request", "two seeds or more"),
        ({"kind": "loop", "seeds": "9-0"}, "invalid_request", "seeds rise"),
        ({"kind": "loop", "seeds": "0-70"}, "invalid_request", "More than 64"),
        ({"kind": "loop", "seeds": [1, 2], "keyframes": TWO}, "invalid_request", "leave one of the two out"),
        ({"kind": "loop", "phase": 96}, "invalid_request", "frames 0 to 95"),
        ({"kind": "loop", "path": "spline", "space": "z"}, "invalid_request", "spline leads through w, not z"),
        ({"kind": "loop", "path": "slerp", "keyframes": [VARIED, VARIED]}, "invalid_request", "no places in it"),
        ({"kind": "loop", "radius": 2}, "field_does_not_fit", "slerp has no radius"),
        ({"kind": "loop", "path": "noise", "easing": "linear"}, "field_does_not_fit", "noise has no easing"),
        ({"kind": "loop", "path": "noise", "seeds": [1, 2]}, "invalid_request", "give one seed"),
        ({"kind": "walk", "path": "noise"}, "invalid_request", "ask for kind loop"),
        ({"kind": "loop", "format": "png"}, "invalid_request", "A loop is a film: mp4, webm, webp, gif or zip"),
        ({"kind": "grid", "format": "mp4"}, "invalid_request", "A sheet is a png"),
        ({"kind": "loop", "size": "33x32"}, "invalid_request", "mp4 needs even sides"),
        ({"kind": "loop", "format": "gif", "fps": 60}, "invalid_request", "GIF of more than 50"),
        ({"kind": "loop", "format": "gif", "lossless": True}, "invalid_request", "GIF has 256 colours"),
        ({"kind": "loop", "size": "2048x2048", "seconds": 240}, "invalid_request", "one job takes at most"),
        ({"kind": "grid", "seeds": "0-999", "size": "1024x1024"}, "invalid_request", "The sheet would have"),
        ({"kind": "grid", "seeds": "0-2000"}, "invalid_request", "More than 1024"),
        ({"kind": "growth"}, "invalid_request", "'tiny' has one"),
        ({"kind": "growth", "model": "grown", "checkpoints": ["abc"]}, "checkpoint_invalid", "'abc'"),
        ({"kind": "grid", "models": ["grown", "none"], "model": None}, "model_not_found", "'none'"),
        ({"kind": "grid", "models": ["grown", "other"]}, "field_does_not_fit", "model belongs to one model"),
        ({"kind": "loop", "label": "cat"}, "label_not_found", "without labels"),
        ({"kind": "loop", "sliders": {"rust": 1}}, "direction_not_found", "rust"),
        ({"kind": "loop", "keyframes": [{"seed": 1, "zeal": 1}, {"seed": 2}]}, "unknown_field", "keyframes.0.zeal"),
        ({"kind": "loop", "keyframes": [{"latent": "a" * 64}, {"seed": 2}]}, "latent_not_found", "aaaaaaaaaaaa"),
        (
            {"kind": "loop", "keyframes": [{"mix": {"seed": 1, "layers": "7"}}, {"seed": 2}]},
            "invalid_request",
            "mix asks for layer 7; model 'tiny' has layers 0 to 3",
        ),
        (
            {
                "kind": "grid",
                "keyframes": [{"cross": {"first": TWO[0], "second": TWO[1], "amount": 0.5}}],
                "seeds": "1",
            },
            "invalid_request",
            "leave seeds out",
        ),
        (
            {"kind": "loop", "keyframes": [{"prompt": "é" * 2000, "seed": n} for n in range(64)]},
            "invalid_request",
            "files carry at most",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_the_reason(
    body: dict[str, Any], code: str, said: str, client: httpx.Client
) -> None:
    answer = client.post(ROUTE, json={"model": "tiny"} | body)
    assert answer.status_code in {404, 422}, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert said in error["message"]


def test_keyframes_of_other_weights_are_refused_where_they_mean_nothing(
    client: httpx.Client, app: Any, grown: list[str]
) -> None:
    picture = client.post("/v1/images/generations", json={"model": f"grown@{grown[0]}", "seed": 7}).json()
    recipe = picture["data"][0]["recipe"]
    both = {"kind": "walk", "keyframes": [recipe, {"seed": 1}]}
    assert film_of(client, model=None, **both).checkpoint == grown[0]  # the recipe's own
    assert film_of(client, model="grown", **both).checkpoint == grown[2]  # the same seed, drawn by the newest
    answer = client.post(ROUTE, json={"model": "tiny", **both})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "keyframes.0")
    mixed = {"kind": "walk", "keyframes": [recipe, recipe | {"checkpoint": grown[1]}]}
    answer = client.post(ROUTE, json=mixed)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")


def test_only_renders_have_files_and_previews(client: httpx.Client, app: Any) -> None:
    with app.db.begin() as session:
        job = jobs.submit(session, "train", {"name": "no-render"}).id
    for what in ("file", "preview"):
        answer = client.get(f"{ROUTE}/{job}/{what}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "render_not_found")
    assert client.get(f"{ROUTE}/job_none/file").json()["error"]["code"] == "job_not_found"


def test_a_texts_model_is_told_what_the_request_or_the_keyframe_says(client: httpx.Client, spoken: str) -> None:
    film = film_of(
        client, kind="walk", model="spoken", prompt="red", keyframes=[{"seed": 1}, {"seed": 2, "label": "face"}]
    )
    first, second = film.keyframes
    assert (film.checkpoint, first.prompt, first.label) == (spoken, "red", None)
    assert (second.prompt, second.label) == (None, "face")
    hashed = film_of(client, kind="loop", prompt="red", seeds=[0, 1])
    assert {point.prompt_mode for point in hashed.keyframes} == {"hashed"}
    refused = client.post(ROUTE, json={"kind": "grid", "models": ["spoken", "other"], "prompt": "red"})
    assert "Only some of these models" in refused.json()["error"]["message"]
