import io
import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from app.serving.encode import DIGITAL_SOURCE_TYPE, Pixels, encode, read_recipe, resample
from app.serving.recipe import MAX_RECIPE_BYTES, Mix, OutputFormat, Recipe

MakeRecipe = Callable[..., Recipe]
FORMATS = get_args(OutputFormat)
USER_COMMENT = (0x8769, 0x9286)


def picture(height: int = 32, width: int = 32, channels: int = 3) -> Pixels:
    """Smooth, with a little noise, as GANs paint."""
    noise = np.random.RandomState(0).randint(0, 40, (height, width, channels))
    slope = np.linspace(0, 215, width)[None, :, None]
    return (noise + slope).astype(np.uint8)


def chunks(png: bytes) -> list[tuple[str, bytes]]:
    """Kind and data of each chunk, by the PNG specification's 5.3, every checksum compared with zlib's."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, start = [], 8
    while start < len(png):
        length, kind = struct.unpack_from(">I4s", png, start)
        data = png[start + 8 : start + 8 + length]
        assert png[start + 8 + length : start + 12 + length] == struct.pack(">I", zlib.crc32(kind + data))
        found.append((kind.decode(), data))
        start += 12 + length
    return found


def inflated(data: bytes) -> bytes:
    """A whole zlib stream, with no more memory of what came before than its header asks for."""
    stream = zlib.decompressobj(0)  # the header's window
    out = stream.decompress(data, 257)  # and never more at once: a match from further back would fail
    while not stream.eof:
        out += stream.decompress(stream.unconsumed_tail, 257)
    assert not stream.unused_data
    return out


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(32, 32), (1, 7), (7, 1), (1, 1), (256, 256)])
def test_a_png_is_what_the_specification_says(make_recipe: MakeRecipe, shape: tuple[int, int], channels: int) -> None:
    (height, width), pixels = shape, picture(*shape, channels)
    written = chunks(encode(pixels, output_format="png", recipe=make_recipe(size=(width, height))))

    assert [kind for kind, _ in written] == ["IHDR", "tEXt", "tEXt", "iTXt", "IDAT", "IEND"]
    assert struct.unpack(">2I5B", written[0][1]) == (width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    assert written[-1][1] == b""
    rows = np.frombuffer(inflated(written[4][1]), np.uint8).reshape(height, 1 + width * channels)
    assert set(rows[:, 0]) == {2}  # the filter Up: add what is above
    assert np.array_equal(np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("contents", ["noise", "flat", "stripes", "far repeats"])
def test_pixels_of_any_kind_come_back(make_recipe: MakeRecipe, contents: str) -> None:
    chance = np.random.RandomState(0)
    pixels = np.zeros((200, 333, 3), dtype=np.uint8)
    if contents == "noise":
        pixels[:] = chance.randint(0, 256, pixels.shape)
    elif contents == "stripes":
        pixels[:, ::2] = 255
    elif contents == "far repeats":
        pixels[:] = np.resize(chance.randint(0, 256, 600), pixels.size).reshape(pixels.shape)
    written = chunks(encode(pixels, output_format="png", recipe=make_recipe(size=(333, 200))))

    rows = np.frombuffer(inflated(dict(written)["IDAT"]), np.uint8).reshape(200, 1 + 333 * 3)
    assert np.array_equal(np.add.accumulate(rows[:, 1:], axis=0, dtype=np.uint8).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(32, 32), (1, 7), (7, 1), (1, 1)])
def test_jpeg_and_webp_take_any_shape_and_count_of_channels(
    make_recipe: MakeRecipe, output_format: OutputFormat, shape: tuple[int, int], channels: int
) -> None:
    pixels = np.full((*shape, channels), 200, dtype=np.uint8)
    image = opened(encode(pixels, output_format=output_format, recipe=make_recipe(size=shape[::-1])))

    assert (image.mode, image.size) == ("RGB", shape[::-1])
    assert np.abs(np.asarray(image).astype(int) - 200).max() <= 2


@pytest.mark.parametrize("output_format", FORMATS)
def test_threads_that_encode_side_by_side_make_the_bytes_of_one(
    make_recipe: MakeRecipe, output_format: OutputFormat
) -> None:
    sizes = [(32, 32), (64, 64), (200, 120)] * 8

    def file(size: tuple[int, int]) -> bytes:
        return encode(picture(), output_format=output_format, recipe=make_recipe(5, size=size))

    alone = [file(size) for size in sizes]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(file, sizes)) == alone


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


def test_exif_is_what_pillow_writes_but_of_the_type_the_standard_wants(make_recipe: MakeRecipe) -> None:
    recipe, reference = make_recipe(5), Image.Exif()
    reference.get_ifd(USER_COMMENT[0])[USER_COMMENT[1]] = b"ASCII\0\0\0" + recipe.canonical_json().encode()

    image = opened(encode(picture(), output_format="jpeg", recipe=recipe))

    undefined = reference.tobytes().replace(b"\x92\x86\x00\x01", b"\x92\x86\x00\x07")  # Pillow says BYTE
    assert image.info["exif"] == undefined.rstrip(b"\0")  # which ends on an even byte


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(32, 32), (1, 7), (7, 1), (1, 1)])
def test_a_webp_of_100_holds_exactly_the_pixels(make_recipe: MakeRecipe, shape: tuple[int, int], channels: int) -> None:
    recipe, pixels = make_recipe(5, size=shape[::-1]), picture(*shape, channels)
    file = encode(pixels, output_format="webp", recipe=recipe, compression=100)

    assert np.array_equal(np.asarray(opened(file)), np.broadcast_to(pixels, (*shape, 3)))
    assert read_recipe(file) == recipe
    assert DIGITAL_SOURCE_TYPE.encode() in file
    assert file == encode(pixels, output_format="webp", recipe=recipe, compression=100)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (512, 96), (16, 8), (16, 64), (64, 16), (1, 1)])
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
