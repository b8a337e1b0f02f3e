"""A file's claim is the recipe in it, what proving it takes, and what its head alone says against it."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import pytest

from app.core.errors import InvalidRequest, TooLarge
from app.serving.bulk import file_name
from app.serving.encode import Pixels, encode, sheet_png
from app.serving.film import FilmRecipe
from app.serving.films.archive import FRAME_NAME, RECIPE_NAME
from app.serving.frames import frame_size
from app.serving.proving import claims
from app.serving.proving.claims import Claim, claim, require_work
from app.serving.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
A, B, LATENT = "a" * 64, "b" * 64, "c" * 64


def claimed(data: bytes) -> Claim:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        return claim(file)


def film(**fields: Any) -> FilmRecipe:
    said = {"kind": "loop", "path": "linear", "space": "w", "easing": "linear", "frames": 12, "fps": 24}
    said |= {"size": (48, 40), "model": "emoji", "checkpoint": A, "keyframes": [{"seed": 1}, {"seed": 2}]}
    return FilmRecipe.model_validate(said | fields)


def grid(**fields: Any) -> FilmRecipe:
    nothing = dict.fromkeys(("path", "space", "easing", "fps"))
    return film(kind="grid", frames=1, columns=2, **nothing | fields)


def picture(width: int = 48, height: int = 40) -> Pixels:
    return np.zeros((height, width, 3), np.uint8)


def zipped(files: dict[str, bytes]) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return place.getvalue()


def test_a_picture_claims_its_recipe_and_its_head_may_speak_against_it(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(5, size=(48, 40), latent=LATENT)
    file = encode(picture(), output_format="png", recipe=recipe)
    assert claimed(file) == Claim(recipe, None, 1, {A: "emoji"}, frozenset({LATENT}))
    giant = claimed(file[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + file[24:])
    assert giant.recipe == recipe
    assert giant.difference is not None
    assert (giant.difference.size, giant.difference.pixels) == ((2**31 - 1, 2**31 - 1), None)
    assert "2147483647x2147483647 pixels and its recipe says 48x40" in giant.difference.reason


def test_a_sheet_claims_all_its_weights_and_pictures() -> None:
    sheet = grid(checkpoints=[B, A], models=["other", "emoji"], seeds=[1, 2, 3])
    size = frame_size(sheet)
    found = claimed(sheet_png(picture(*size), sheet))
    assert (found.recipe, found.painted, found.checkpoints) == (sheet, 12, {B: "other", A: "emoji"})
    assert found.difference is None
    smaller = claimed(sheet_png(picture(), sheet)).difference
    assert smaller is not None
    assert smaller.size == (48, 40)


def test_a_growth_takes_every_picture_at_every_checkpoint() -> None:
    growth = film(kind="growth", path=None, space=None, columns=2, checkpoints=[B, A, A], seeds=[1, 2])
    text = growth.canonical_json().encode()
    assert claimed(b"GIF89a" + text).painted == 12


def test_a_zip_of_frames_claims_one_recipe_and_its_names_are_checked() -> None:
    text = film().canonical_json().encode()
    names = [RECIPE_NAME, *map(FRAME_NAME.format, range(12))]
    found = claimed(zipped(dict.fromkeys(names, text)))
    assert (found.recipe, found.container, found.painted, found.difference) == (film(), "zip", 12, None)
    fewer = claimed(zipped(dict.fromkeys([*names[:-2], "x.png"], text))).difference
    assert fewer is not None
    assert (fewer.missing, fewer.added) == (("000010.png", "000011.png"), ("x.png",))


def test_a_zip_of_pictures_claims_all_that_they_do(make_recipe: MakeRecipe) -> None:
    recipes = [make_recipe(1), make_recipe(2, B, latent=LATENT), make_recipe(3, B, model="other")]
    files = {f"{each.seed}.png": encode(picture(), output_format="png", recipe=each) for each in recipes}
    found = claimed(zipped(files | {"about.txt": b"mine"}))
    assert found == Claim(None, "zip", 3, {A: "emoji", B: "other"}, frozenset({LATENT}))


def test_pictures_of_a_batch_are_those_that_their_names_say(make_recipe: MakeRecipe) -> None:
    recipes = [make_recipe(seed) for seed in range(4)]
    files = {file_name(each.seed, "png"): encode(picture(), output_format="png", recipe=each) for each in recipes}
    files[RECIPE_NAME] = make_recipe(0).canonical_json().encode()
    assert claimed(zipped(files)).difference is None
    names = {file_name(1, "png"): file_name(2, "png"), file_name(2, "png"): file_name(1, "png")}
    renamed = claimed(zipped({names.get(name, name): data for name, data in files.items()}))
    assert renamed.difference is not None
    assert renamed.difference.added == (file_name(1, "png"), file_name(2, "png"))
    other = encode(picture(), output_format="png", recipe=make_recipe(9, truncation_psi=0.1))
    mixed = claimed(zipped(files | {file_name(9, "png"): other}))
    assert mixed.difference is not None
    assert (mixed.painted, mixed.difference.added) == (5, (file_name(9, "png"),))


def test_a_file_without_a_recipe_claims_nothing(make_recipe: MakeRecipe) -> None:
    minimal = encode(picture(), output_format="png", recipe=make_recipe(5), metadata="minimal")
    for data in (minimal, b"", b"GIF89a", zipped({"a.png": minimal}), zipped({"about.txt": b"mine"})):
        with pytest.raises(InvalidRequest) as caught:
            claimed(data)
        assert (caught.value.error_code, caught.value.param) == ("recipe_missing", "file")


@pytest.mark.parametrize(
    "recipe",
    [
        film(frames=7200, size=(512, 512)),
        grid(seeds=list(range(512)), size=(512, 512)),
        film(kind="growth", path=None, space=None, columns=9, checkpoints=[A] * 256, seeds=range(100), size=(1, 1)),
    ],
    ids=lambda recipe: str(recipe.kind),
)
def test_what_claims_to_be_too_long_is_refused(recipe: FilmRecipe) -> None:
    head = b"\x89PNG\r\n\x1a\n" if recipe.kind == "grid" else b"GIF89a"
    with pytest.raises(InvalidRequest) as caught:
        claimed(sheet_png(picture(), recipe) if recipe.kind == "grid" else head + recipe.canonical_json().encode())
    assert caught.value.error_code == "film_too_long"
    with pytest.raises(InvalidRequest, match="network of 1024x1024"):
        require_work(200, 1024)
    require_work(128, 1024)


def test_a_picture_of_too_many_bytes_is_refused(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MAX_PICTURE_BYTES", 1000)
    with pytest.raises(TooLarge):
        claimed(encode(picture(), output_format="png", recipe=make_recipe()) + bytes(1000))


def test_the_file_stays_open_for_those_who_prove_it(make_recipe: MakeRecipe) -> None:
    file: BinaryIO
    with tempfile.SpooledTemporaryFile(1 << 20) as file:  # type: ignore[assignment]
        file.write(encode(picture(32, 32), output_format="png", recipe=make_recipe()))
        assert claim(file) == claim(file)
        assert not file.closed
