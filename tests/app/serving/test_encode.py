import io
import os
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.serving.encode import DIGITAL_SOURCE_TYPE, MAX_RECIPE_BYTES, Pixels, encode, read_recipe, resample
from app.serving.recipe import Mix, OutputFormat, Recipe

MakeRecipe = Callable[..., Recipe]
FORMATS = get_args(OutputFormat)
USER_COMMENT = (0x8769, 0x9286)


def picture(height: int = 32, width: int = 32, channels: int = 3) -> Pixels:
    """Smooth, with a little noise, as GANs paint."""
    noise = np.random.RandomState(0).randint(0, 40, (height, width, channels))
    slope = np.linspace(0, 215, width)[None, :, None]
    return (noise + slope).astype(np.uint8)


def opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def png_with(**texts: str) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.fromarray(picture()).save(file, "PNG", pnginfo=info)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(32, 32), (1, 7), (7, 1), (128, 64)])
def test_a_png_holds_exactly_the_pixels(make_recipe: MakeRecipe, shape: tuple[int, int], channels: int) -> None:
    pixels = picture(*shape, channels)
    file = encode(pixels, output_format="png", recipe=make_recipe(size=shape[::-1]))

    Image.open(io.BytesIO(file)).verify()
    assert np.array_equal(np.asarray(opened(file)).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_recipe_makes_the_same_bytes(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    once, again = (encode(picture(), output_format=output_format, recipe=make_recipe(5)) for _ in range(2))

    assert once == again
    assert once != encode(picture(), output_format=output_format, recipe=make_recipe(6))


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("prompt", ["a cat", '"version":1}', "猫\n🐈, ζ", "x" * 2000, "猫" * 2000])
def test_a_recipe_comes_back_out_of_its_file(make_recipe: MakeRecipe, output_format: OutputFormat, prompt: str) -> None:
    recipe = make_recipe(5, prompt=prompt, prompt_mode="hashed", size=(48, 40))
    file = encode(picture(), output_format=output_format, recipe=recipe)

    assert read_recipe(file) == recipe
    assert opened(file).size == (48, 40)


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_longest_recipe_comes_back_too(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    mix = Mix(seed=2**32 - 1, layers=tuple([63] * 64))
    recipe = make_recipe(2**32 - 1, model="🐈" * 200, label="🐈" * 200, prompt="🐈" * 2000, mix=mix)

    assert read_recipe(encode(picture(), output_format=output_format, recipe=recipe)) == recipe


@pytest.mark.parametrize("prompt", ["a cat", "猫"])
def test_a_png_carries_our_key_the_line_galleries_read_and_the_mark(make_recipe: MakeRecipe, prompt: str) -> None:
    recipe = make_recipe(5, prompt=prompt, prompt_mode="hashed")
    image = opened(encode(picture(), output_format="png", recipe=recipe))

    assert image.info["ganvas"] == recipe.canonical_json()
    assert image.info["parameters"] == recipe.parameters_line()
    assert DIGITAL_SOURCE_TYPE in image.info["XML:com.adobe.xmp"]


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_jpeg_and_webp_carry_the_recipe_as_user_comment(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    recipe = make_recipe(5)
    image = opened(encode(picture(), output_format=output_format, recipe=recipe))

    comment = image.getexif().get_ifd(USER_COMMENT[0])[USER_COMMENT[1]]
    assert comment == b"ASCII\0\0\0" + recipe.canonical_json().encode()


@pytest.mark.parametrize("output_format", FORMATS)
def test_minimal_metadata_is_the_mark_alone(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    recipe = make_recipe(5, prompt="secret", prompt_mode="hashed")
    file = encode(picture(), output_format=output_format, recipe=recipe, metadata="minimal")

    assert DIGITAL_SOURCE_TYPE.encode() in file
    assert read_recipe(file) is None
    assert not any(word in file for word in (b"secret", b"emoji", b"parameters", b"seed", b"aaaa"))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_less_compression_quality_makes_smaller_files(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    sizes = [
        len(encode(picture(), output_format=output_format, recipe=make_recipe(), compression=quality))
        for quality in (0, 50, 100)
    ]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (512, 96), (16, 8), (1, 1)])
def test_resampling_is_nearest_as_pillow_does_it(size: tuple[int, int]) -> None:
    expected = Image.fromarray(picture()).resize(size, Image.Resampling.NEAREST)

    assert np.array_equal(resample(picture(), size), np.asarray(expected))


def test_a_new_pixel_takes_the_colour_under_its_centre() -> None:
    enlarged = resample(picture(), (100, 33))

    for y, x in np.ndindex(33, 100):
        assert np.array_equal(enlarged[y, x], picture()[(2 * y + 1) * 32 // 66, int((x + 0.5) * 0.32 + 1e-9)])


def test_a_file_of_another_program_has_no_recipe() -> None:
    assert read_recipe(png_with(parameters="Steps: 20, Seed: 5, Size: 512x512")) is None
    assert read_recipe(png_with(ganvas="a note")) is None


def test_a_recipe_of_a_later_version_or_with_wrong_values_is_none(make_recipe: MakeRecipe) -> None:
    text = make_recipe(5).canonical_json()

    assert read_recipe(png_with(ganvas=text)) == make_recipe(5)
    assert read_recipe(png_with(ganvas=text.replace('"version":1', '"version":2'))) is None
    assert read_recipe(png_with(ganvas=text.replace('"seed":5', '"seed":-5'))) is None


@pytest.mark.parametrize("inside", ["[" * 20_000, '{"a":' * 5_000, "9" * MAX_RECIPE_BYTES, "\\u", '"', ""])
def test_hostile_text_in_the_place_of_a_recipe_is_none(inside: str) -> None:
    opening, closing = '{"checkpoint":"' + "a" * 64 + '","seed":', '"version":1}'

    for text in (inside, opening + inside, opening + inside + closing, opening * 1_000 + inside):
        assert read_recipe(png_with(ganvas=text)) is None


def test_anything_that_is_no_picture_has_no_recipe(make_recipe: MakeRecipe) -> None:
    for file in (b"", b"GIF89a", os.urandom(500), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00\x08Exif\0\0"):
        assert read_recipe(file) is None
    whole = [encode(picture(), output_format=output_format, recipe=make_recipe()) for output_format in FORMATS]
    for file in whole:
        for end in range(0, len(file), 37):
            read_recipe(file[:end])  # whatever is left of it, nothing but a recipe or None comes of it
    chance = np.random.RandomState(0)
    for file in whole:
        for _ in range(200):
            broken = bytearray(file)
            for place in chance.randint(0, len(file), 8):
                broken[place] = chance.randint(256)
            read_recipe(bytes(broken))
