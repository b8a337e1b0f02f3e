"""Sheets, films and zips are proved frame by frame, in every container; what was altered is told apart."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from app.serving.encode import DIGITAL_SOURCE_TYPE, Pixels, read_recipe, sheet_png
from app.serving.film import FilmRecipe
from app.serving.films.containers import FilmFormat
from app.serving.frames import frame_size
from app.serving.recipe import Recipe

ROUTE = "/v1/recipes/verify"
FRAMES = 10
LOSSLESS: list[FilmFormat] = ["mp4", "webm", "webp", "zip"]
LOSSY: list[FilmFormat] = ["mp4", "webm", "webp", "gif"]
KINDS = [(container, True) for container in LOSSLESS] + [(container, False) for container in LOSSY]

Films = Callable[..., FilmRecipe]
Write = Callable[..., bytes]
Frames = Callable[[FilmRecipe], list[Pixels]]


def verify(client: httpx.Client, file: bytes) -> httpx.Response:
    return client.post(ROUTE, files={"file": ("film", file)})


def verified(client: httpx.Client, file: bytes) -> dict[str, Any]:
    answer = verify(client, file)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def variety(older: str, vivid: str, stored: list[str]) -> list[dict[str, Any]]:
    """Films of every kind and path, of what keyframes may be."""
    slider = {"name": "rust", "amount": 0.5, "offset": stored[0]}
    points = [{"seed": 3, "sliders": [slider]}, {"latent": stored[1], "seed": 0}, {"seed": 5, "truncation_psi": 0.2}]
    crossed = {"cross": {"first": points[0], "second": points[1], "amount": 0.4}, "seed": 0}
    hashed = {"seed": 4, "prompt": "a c\u00e4t", "prompt_mode": "hashed"}
    growth = {"kind": "growth", "path": None, "space": None, "checkpoints": [older, vivid], "seeds": [1, 2, 3]}
    return [
        {},
        {"keyframes": [{"seed": 1, "sliders": [slider]}, hashed, {"seed": 8}], "phase": 4, "easing": "in_out_sine"},
        {"path": "linear", "space": "w", "keyframes": [*points, crossed], "size": (40, 24)},
        {"path": "spline", "space": "w", "kind": "walk", "keyframes": points, "fps": 12},
        {"path": "noise", "easing": None, "radius": 2.5, "keyframes": [{"seed": 6}], "fps": 30},
        {"kind": "walk", "path": "linear", "frames": 1},
        growth | {"keyframes": [{"seed": 0}], "columns": 2},
        {"model": "spoken", "keyframes": [{"seed": 1, "prompt": "red"}, {"seed": 1, "label": "face"}]},
    ]


@pytest.mark.parametrize(("container", "lossless"), KINDS)
def test_a_film_of_any_kind_is_identical(
    client: httpx.Client,
    make_film: Films,
    write_film: Write,
    vivid: str,
    older: str,
    spoken: str,
    stored: list[str],
    container: FilmFormat,
    lossless: bool,
) -> None:
    all_kinds = variety(older, vivid, stored)
    start = KINDS.index((container, lossless))  # a container that needs no process of its own takes them all
    chosen = all_kinds if container == "zip" else [all_kinds[(start + step) % len(all_kinds)] for step in (0, 4)]
    for fields in chosen:
        weights = {"checkpoint": spoken} if fields.get("model") == "spoken" else {}
        film = make_film(**weights, **fields)
        if frame_size(film)[0] % 2 and container in {"mp4", "webm"} and not lossless:
            continue
        answer = verified(client, write_film(film, container, lossless))
        assert answer["identical"], (fields, answer)
        assert answer.keys() == {"recipe", "identical", "pictures"}
        assert FilmRecipe.model_validate(answer["recipe"]) == film


CHANGES: list[dict[str, Any]] = [
    {"keyframes": [{"seed": 1}, {"seed": 3, "truncation_psi": 1.0}]},
    {"keyframes": [{"seed": 1}, {"seed": 2, "truncation_psi": 0.99}]},
    {"path": "linear"},
    {"path": "linear", "space": "w"},
    {"easing": "in_quad"},
    {"phase": 1},
    {"kind": "walk"},
    {"checkpoint": "older"},
    {"keyframes": [{"seed": 1}, {"seed": 2, "truncation_psi": 1.0, "sliders": "rust"}]},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_film_whose_recipe_was_altered_says_which_frames_differ_and_by_how_much(
    client: httpx.Client,
    make_film: Films,
    painted_frames: Frames,
    write_film: Write,
    older: str,
    stored: list[str],
    change: dict[str, Any],
) -> None:
    said = dict(change)
    if change.get("checkpoint"):
        said["checkpoint"] = older
    if change.get("keyframes", [{}])[-1].get("sliders"):
        slider = {"name": "rust", "amount": 0.01, "offset": stored[0]}
        said["keyframes"] = [change["keyframes"][0], change["keyframes"][1] | {"sliders": [slider]}]
    film, other = make_film(), make_film(**said)
    container: FilmFormat = "mp4" if change in (CHANGES[0], CHANGES[5]) else "zip"
    answer = verified(client, write_film(other, container, pictures=painted_frames(film)))
    levels = np.abs(np.array(painted_frames(film)).astype(int) - np.array(painted_frames(other)))
    differing = np.flatnonzero(levels.any(axis=(1, 2, 3)))
    difference = answer["difference"]
    assert answer["identical"] is False
    assert (difference["frames"], difference["first"]) == (len(differing), differing[0])
    assert difference["pixels"] == np.count_nonzero(levels.any(axis=3))
    assert (difference["max"], difference["mean"]) == (levels.max(), pytest.approx(levels.mean()))
    assert "one of the two was changed" in difference["reason"]


@pytest.mark.parametrize("container", LOSSLESS)
def test_one_pixel_of_one_frame_is_found(
    client: httpx.Client, make_film: Films, painted_frames: Frames, write_film: Write, container: FilmFormat
) -> None:
    pictures = [picture.copy() for picture in painted_frames(make_film())]
    pictures[7][3, 4, 1] ^= 2
    difference = verified(client, write_film(make_film(), container, pictures=pictures))["difference"]
    assert [difference[name] for name in ("frames", "first", "pixels", "max")] == [1, 7, 1, 2]


@pytest.mark.parametrize("container", ["webm", "gif"])
def test_a_touched_up_film_is_not_identical_whatever_its_container_loses(
    client: httpx.Client, make_film: Films, painted_frames: Frames, write_film: Write, container: FilmFormat
) -> None:
    pictures = [picture.copy() for picture in painted_frames(make_film())]
    pictures[5][8:20, 8:20] ^= 128
    answer = verified(client, write_film(make_film(), container, lossless=False, pictures=pictures))
    assert answer["identical"] is False
    assert answer["difference"]["frames"] >= 1
    assert f"Both were compared as a {container}" in answer["difference"]["reason"]


@pytest.mark.parametrize("container", ["mp4", "gif"])
def test_frames_that_are_missing_or_shown_at_another_rate_are_told_without_painting(
    client: httpx.Client, make_film: Films, painted_frames: Frames, write_film: Write, container: FilmFormat
) -> None:
    lossless, pictures = container != "gif", painted_frames(make_film())
    fewer = verified(client, write_film(make_film(), container, lossless, pictures[:-3]))["difference"]
    assert fewer == {"reason": "It has 7 frames and its recipe says 10."}
    slower = verified(client, write_film(make_film(), container, lossless, fps=20))["difference"]
    assert slower == {"reason": "It shows 20 frames a second and its recipe says 24."}
    larger = [np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1) for picture in pictures]
    resized = verified(client, write_film(make_film(), container, lossless, larger))["difference"]
    assert resized["size"] == [64, 64]
    assert "64x64 pixels and its recipe says 32x32" in resized["reason"]


def test_a_recipe_that_does_not_fit_its_container_is_told(
    client: httpx.Client, make_film: Films, painted_frames: Frames, write_film: Write, vivid: str
) -> None:
    film = make_film()
    still = Recipe(model="vivid", checkpoint=vivid, seed=1, size=(32, 32))
    sheet = make_film(kind="grid", columns=2, frames=1, **dict.fromkeys(("path", "space", "easing", "fps")))
    for container in ("gif", "webp"):
        for recipe, kind in ((still, "picture"), (sheet, "grid")):
            answer = verified(client, write_film(film, container, False, recipe=recipe.canonical_json()))
            assert answer["difference"] == {"reason": f"It is a {container}, and its recipe is that of a {kind}."}
    answer = verified(client, sheet_png(painted_frames(film)[0], film))
    assert answer["difference"] == {"reason": "It is a picture, and its recipe is that of a loop."}


def test_a_film_painted_elsewhere_is_rebuilt_here_and_says_so(
    client: httpx.Client, make_film: Films, painted_frames: Frames, write_film: Write
) -> None:
    pictures = [picture ^ 1 for picture in painted_frames(make_film())]
    elsewhere = make_film(device="cuda", dtype="float16")
    answer = verified(client, write_film(elsewhere, "zip", pictures=pictures))
    assert "painted on cuda in float16 and rebuilt on cpu" in answer["difference"]["reason"]
    assert (answer["difference"]["frames"], answer["difference"]["share"]) == (FRAMES, 1.0)
    assert verified(client, write_film(elsewhere, "zip", pictures=painted_frames(make_film())))["identical"] is True


@pytest.mark.parametrize("container", ["mp4", "webm", "webp", "gif", "zip"])
def test_minimal_metadata_is_the_mark_alone_in_every_container(
    client: httpx.Client, make_film: Films, write_film: Write, container: FilmFormat
) -> None:
    mark = DIGITAL_SOURCE_TYPE.encode()
    full, minimal = (write_film(make_film(), container, False, **kind) for kind in ({}, {"recipe": None}))
    assert mark in full
    assert mark in minimal
    assert read_recipe(full) == make_film()
    assert not any(word in minimal for word in (b"vivid", b"seed", b"keyframes"))
    answer = verify(client, minimal)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "recipe_missing")


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 7200, "size": (512, 512)},
        {"frames": 600, "size": (1024, 512)},
        {"kind": "growth", "checkpoints": 200, "seeds": list(range(100)), "size": (1, 1)},
        {"kind": "grid", "seeds": list(range(64)), "frames": 1, "size": (2048, 2048)},
    ],
)
def test_what_would_take_too_long_is_refused_with_the_limits(
    client: httpx.Client, make_film: Films, write_film: Write, vivid: str, fields: dict[str, Any]
) -> None:
    if fields.get("checkpoints"):
        fields = fields | {"checkpoints": [vivid] * fields["checkpoints"]}
    if fields.get("kind"):
        fields |= {"path": None, "space": None, "columns": 8, "keyframes": [{"seed": 1}]}
    if fields.get("kind") == "grid":
        fields |= {"fps": None, "easing": None}
    black = [np.zeros((8, 8, 3), np.uint8)] * 2
    film = make_film(**fields)
    for file in (sheet_png(black[0], film), write_film(film, "gif", False, black, fps=24)):
        if film.kind == "grid" and not file.startswith(b"\x89PNG"):
            continue
        answer = verify(client, file)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "film_too_long")
        assert "10,000 pictures" in answer.json()["detail"]


def test_weights_and_latents_that_are_not_here_are_404(
    client: httpx.Client, make_film: Films, write_film: Write, painted_frames: Frames, vivid: str
) -> None:
    pictures = painted_frames(make_film())
    missing = [
        ({"checkpoint": "0" * 64}, "checkpoint_not_found"),
        (
            {"keyframes": [{"seed": 1}, {"seed": 0, "latent": "f" * 64}], "space": "w", "path": "spline"},
            "latent_not_found",
        ),
        (
            {"keyframes": [{"seed": 1}, {"seed": 0, "latent": vivid}], "space": "w", "path": "spline"},
            "latent_not_found",
        ),
    ]
    for fields, code in missing:
        for container in ("zip", "webp"):
            answer = verify(client, write_film(make_film(**fields), container, pictures=pictures))
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
