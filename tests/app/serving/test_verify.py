"""A file is identical at whatever quality it was saved, and one level of one channel is a difference."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.serving import verify
from app.serving.difference import Difference
from app.serving.encode import Pixels, encode
from app.serving.recipe import OutputFormat, Recipe
from app.serving.runtime import Runtime

MakeRecipe = Callable[..., Recipe]


def picture(seed: int = 0, height: int = 40, width: int = 48, channels: int = 3) -> Pixels:
    noise = np.random.RandomState(seed).randint(0, 40, (height, width, channels))
    return (noise + np.linspace(0, 215, width)[None, :, None]).astype(np.uint8)


def compared(file: bytes, pixels: Pixels, recipe: Recipe, painted: Recipe | None = None) -> Difference | None:
    """What verify says of a file whose recipe gives these pixels."""
    return verify.compare(file, pixels, recipe, painted or recipe)


@pytest.fixture
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(5, size=(48, 40), device="cpu", dtype="float32")


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_of_any_quality_is_identical(recipe: Recipe, output_format: OutputFormat, channels: int) -> None:
    for quality in range(101):  # a WebP of 100 is lossless
        pixels = picture(quality, channels=channels)
        file = encode(pixels, output_format=output_format, recipe=recipe, compression=quality)
        assert compared(file, pixels, recipe) is None, quality


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_is_identical_however_many_channels_it_has(recipe: Recipe, channels: int) -> None:
    pixels = picture(channels=channels)
    assert compared(encode(pixels, output_format="png", recipe=recipe), pixels, recipe) is None


def test_a_png_packed_anew_by_another_program_is_identical(recipe: Recipe) -> None:
    file = io.BytesIO()
    Image.fromarray(picture()).convert("RGBA").save(file, "PNG", compress_level=9)
    assert compared(file.getvalue(), picture(), recipe) is None


def test_one_level_of_one_channel_is_a_difference(recipe: Recipe) -> None:
    altered = picture().copy()
    altered[7, 9, 1] += 1
    found = compared(encode(altered, output_format="png", recipe=recipe), picture(), recipe)
    assert found is not None
    assert (found.pixels, found.max, found.size) == (1, 1, None)
    assert (found.share, found.mean) == (pytest.approx(1 / 1920), pytest.approx(1 / 5760))
    assert "one of the two was changed" in found.reason


def test_differences_in_both_directions_are_counted_in_levels(recipe: Recipe) -> None:
    altered = picture().copy()
    altered[0, 0], altered[0, 1] = 255, 0
    found = compared(encode(altered, output_format="png", recipe=recipe), picture(), recipe)
    expected = np.abs(altered.astype(int) - picture())
    assert found is not None
    assert (found.pixels, found.max, found.mean) == (2, expected.max(), pytest.approx(expected.mean()))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_a_lossy_file_is_compared_with_what_its_own_quality_gives(recipe: Recipe, output_format: OutputFormat) -> None:
    altered = picture().copy()
    altered[10:14, 10:14] = 0
    file = encode(altered, output_format=output_format, recipe=recipe, compression=70)
    found = compared(file, picture(), recipe)
    assert found is not None
    assert found.pixels is not None
    assert found.share is not None
    assert found.mean is not None
    assert 16 <= found.pixels < 1920
    assert found.share < 0.9
    assert found.mean < 12  # against the pixels before they were encoded it is more
    assert "of quality" in found.reason


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_a_file_that_another_program_saved_again_is_told_so(recipe: Recipe, output_format: OutputFormat) -> None:
    ours = encode(picture(), output_format=output_format, recipe=recipe, compression=80)
    options: dict[str, Any] = {"qtables": [[17] * 64, [19] * 64]} if output_format == "jpeg" else {"quality": 60}
    again = io.BytesIO()
    with Image.open(io.BytesIO(ours)) as image:
        image.save(again, output_format, **options)
    found = compared(again.getvalue(), picture(), recipe)
    assert found is not None
    assert found.mean is not None
    assert found.mean < 10
    if output_format == "jpeg":
        assert "not saved by this version of Ganvas; a JPEG of quality" in found.reason


def test_transparency_on_one_side_alone_cannot_be_compared(recipe: Recipe) -> None:
    clear = np.dstack([picture(), np.full((40, 48), 9, np.uint8)])
    found = compared(encode(clear, output_format="png", recipe=recipe), picture(), recipe)
    assert found is not None
    assert (found.pixels, "transparent" in found.reason) == (None, True)


@pytest.mark.parametrize(
    ("told", "painted", "word"),
    [
        (
            {"device": "cuda", "dtype": "float16"},
            {"device": "cpu", "dtype": "float32"},
            "painted on cuda in float16 and",
        ),
        ({"device": None, "dtype": None}, {"device": "cpu", "dtype": "float32"}, "does not say"),
        ({"device": "cpu", "dtype": "float32"}, {"device": "cpu", "dtype": "float32"}, "another kind of processor"),
    ],
)
def test_the_reason_names_what_both_were_painted_on(
    recipe: Recipe, told: dict[str, Any], painted: dict[str, Any], word: str
) -> None:
    theirs = recipe.model_copy(update=told)
    found = compared(
        encode(picture(1), output_format="png", recipe=theirs), picture(), theirs, recipe.model_copy(update=painted)
    )
    assert found is not None
    assert word in found.reason


@pytest.mark.parametrize(
    ("told", "here", "painted"),
    [
        ((None, None), Runtime("cpu", "bfloat16"), ("cpu", "bfloat16")),
        (("cpu", "float32"), Runtime("cpu", "bfloat16"), ("cpu", "float32")),
        (("cpu", "bfloat16"), Runtime("cpu", "float32"), ("cpu", "bfloat16")),
        (("cuda", "bfloat16"), Runtime("cpu", "float32"), ("cpu", "float32")),
        (("cpu", "float16"), Runtime("cpu", "float32"), ("cpu", "float32")),
        (("cpu", "float32"), Runtime("cuda", "float16"), ("cuda", "float16")),
        (("cuda", "float32"), Runtime("cuda", "float16"), ("cuda", "float32")),
    ],
)
def test_a_recipe_is_rebuilt_in_its_own_dtype_where_the_device_is_its_own(
    make_recipe: MakeRecipe, told: tuple[Any, Any], here: Runtime, painted: tuple[str, str]
) -> None:
    recipe = make_recipe(device=told[0], dtype=told[1])
    found = verify.to_paint(recipe, here)
    assert (found.device, found.dtype) == painted
    assert found.model_copy(update={"device": told[0], "dtype": told[1]}) == recipe
