"""Files of anyone: ours come out pixel for pixel, and hostile ones cost no more than their head says."""

import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from app.core.errors import InvalidRequest
from app.serving.decode import MAX_PARTS, decode, decode_apart, essence, require_sound
from app.serving.encode import Pixels, encode
from app.serving.recipe import OutputFormat, Recipe

MakeRecipe = Callable[..., Recipe]
FORMATS = get_args(OutputFormat)
MIB = 1024 * 1024


def picture(height: int = 32, width: int = 24, channels: int = 3) -> Pixels:
    noise = np.random.RandomState(0).randint(0, 40, (height, width, channels))
    return (noise + np.linspace(0, 215, width)[None, :, None]).astype(np.uint8)


def saved(image: Image.Image, output_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, output_format, **options)
    return file.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def header(width: int, height: int, depth: int = 8, colours: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">2I5B", width, height, depth, colours, 0, 0, 0)


def refused(data: bytes) -> str:
    """What is said against a file, which must be said soon."""
    started = time.perf_counter()
    with pytest.raises(InvalidRequest) as caught:
        decode(essence(data))
    assert time.perf_counter() - started < 1
    assert (caught.value.error_code, caught.value.param) == ("picture_invalid", "file")
    return caught.value.message


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("output_format", FORMATS)
def test_our_own_files_are_decoded_as_pillow_decodes_them(
    make_recipe: MakeRecipe, output_format: OutputFormat, channels: int
) -> None:
    file = encode(picture(channels=channels), output_format=output_format, recipe=make_recipe(size=(24, 32)))
    found = essence(file)
    with Image.open(io.BytesIO(file)) as image:
        expected = np.asarray(image.convert("RGBA" if channels in (2, 4) and output_format == "png" else "RGB"))

    assert (found.output_format, found.size) == (output_format, (24, 32))
    assert np.array_equal(decode(found), expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_png_saved_again_by_another_program_keeps_its_pixels(mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)

    assert np.array_equal(decode(essence(saved(image, "PNG"))), np.asarray(image.convert("RGB")))


def test_transparency_is_a_channel_only_where_something_is_transparent() -> None:
    clear = Image.fromarray(picture()).convert("RGBA")
    clear.putpixel((3, 4), (1, 2, 3, 254))

    assert decode(essence(saved(clear, "PNG"))).shape == (32, 24, 4)
    clear.putalpha(255)
    assert decode(essence(saved(clear, "PNG"))).shape == (32, 24, 3)


@pytest.mark.parametrize("output_format", FORMATS)
def test_metadata_never_reaches_pillow(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    found = essence(encode(picture(), output_format=output_format, recipe=make_recipe(size=(24, 32), prompt="secret")))

    assert not any(word in found.file for word in (b"secret", b"ganvas", b"Exif", b"EXIF", b"xmpmeta", b"checkpoint"))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_the_coding_tells_one_quality_from_another(make_recipe: MakeRecipe, output_format: OutputFormat) -> None:
    codings = [
        essence(encode(picture(), output_format=output_format, recipe=make_recipe(), compression=quality)).coding
        for quality in range(0, 101, 5)
    ]

    assert codings == sorted(set(codings), reverse=True)


def test_animated_files_are_refused() -> None:
    frames = [Image.fromarray(picture() // divisor) for divisor in (1, 2)]
    for output_format in ("PNG", "WEBP"):
        data = saved(frames[0], output_format, save_all=True, append_images=frames[1:])
        assert "animated" in refused(data)


def test_a_lossless_webp_comes_back_as_it_was_and_says_so(make_recipe: MakeRecipe) -> None:
    files = [
        encode(picture(), output_format="webp", recipe=make_recipe(size=(24, 32)), compression=quality)
        for quality in (100, 99)
    ]
    lossless, lossy = map(essence, files)
    assert (lossless.lossless, lossless.size, lossy.lossless) == (True, (24, 32), False)
    assert np.array_equal(decode(lossless), picture())
    assert essence(saved(Image.fromarray(picture()), "PNG")).lossless


def test_kinds_that_are_never_ours_are_refused_by_name() -> None:
    image = Image.fromarray(picture())

    assert "baseline" in refused(saved(image, "JPEG", progressive=True))
    assert "three" in refused(saved(image.convert("L"), "JPEG"))
    assert "three" in refused(saved(image.convert("CMYK"), "JPEG"))
    assert "16 bits" in refused(saved(Image.new("I;16", (8, 8)), "PNG"))
    for data in (b"", b"GIF89a", b"RIFF\0\0\0\0WAVE", saved(image, "BMP"), saved(image, "GIF"), saved(image, "TIFF")):
        assert "no PNG, JPEG or WebP" in refused(data)


def test_a_header_that_declares_a_giant_is_believed_but_not_unpacked() -> None:
    started = time.perf_counter()
    for side in (20_000, 2**31 - 1):
        assert essence(png(header(side, side), (b"IDAT", b""), (b"IEND", b""))).size == (side, side)
    jpeg = bytearray(saved(Image.fromarray(picture()), "JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = b"\xff\xff\xff\xff"
    assert essence(bytes(jpeg)).size == (65_535, 65_535)
    webp = bytearray(saved(Image.fromarray(picture()), "WEBP"))
    webp[26:30] = b"\xff\x3f\xff\x3f"
    assert essence(bytes(webp)).size == (16_383, 16_383)
    assert time.perf_counter() - started < 1


def test_a_second_header_does_not_overrule_the_first() -> None:
    rows = zlib.compress(bytes(4 * 13))
    assert "damaged" in refused(png(header(4, 4), header(30_000, 30_000), (b"IDAT", rows), (b"IEND", b"")))
    jpeg = saved(Image.fromarray(picture()), "JPEG")
    place = jpeg.index(b"\xff\xc0")
    assert "several" in refused(jpeg[:place] + jpeg[place : place + 19] + jpeg[place:])


def test_a_few_pixels_with_a_flood_behind_them_cost_a_few_pixels() -> None:
    flood = zlib.compress(bytes(256 * MIB), 1)  # in 1.2 MB
    started = time.perf_counter()
    pixels = decode(essence(png(header(4, 4), (b"IDAT", flood), (b"IEND", b""))))
    assert time.perf_counter() - started < 1
    assert pixels.shape == (4, 4, 3)


def test_files_in_very_many_pieces_are_refused() -> None:
    pieces = MIB  # 12 MiB of empty chunks
    empty = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    assert str(f"{MAX_PARTS:,}") in refused(png(header(4, 4)) + empty * pieces)
    assert str(f"{MAX_PARTS:,}") in refused(b"\xff\xd8" + b"\xff\xfe\0\2" * pieces)
    assert str(f"{MAX_PARTS:,}") in refused(b"RIFF\0\0\0\0WEBP" + b"ABCD\0\0\0\0" * pieces)
    for filling in (b"\xff", b"\0"):
        refused(b"\xff\xd8\xff" + filling * 16 * MIB)


def test_huge_and_nested_metadata_costs_nothing() -> None:
    image = Image.fromarray(picture())
    data = saved(image, "PNG")
    bomb = (b"zTXt", b"key\0\0" + zlib.compress(bytes(100 * MIB), 1))
    profile = (b"iCCP", b"key\0\0" + zlib.compress(bytes(100 * MIB), 1))
    started = time.perf_counter()
    hostile = png(bomb, profile, (b"tEXt", b"x" * 8 * MIB))[8:]
    assert np.array_equal(decode(essence(data[:33] + hostile + data[33:])), picture())
    assert time.perf_counter() - started < 2  # most of it to make the file


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_cut_or_altered_file_is_refused_or_a_picture_of_its_size(
    make_recipe: MakeRecipe, output_format: OutputFormat
) -> None:
    file = encode(picture(), output_format=output_format, recipe=make_recipe(size=(24, 32)))
    for end in range(0, len(file) - 2, 61):
        refused(file[:end])
    chance = random.Random(0)
    for _ in range(400):
        broken = bytearray(file)
        for _ in range(chance.choice((1, 4, 30))):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            found = essence(bytes(broken))
            if found.size == (24, 32):
                assert decode(found).shape[:2] == (32, 24)
        except InvalidRequest as error:
            assert error.error_code == "picture_invalid"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("output_format", FORMATS)
def test_apart_the_same_pixels_come(make_recipe: MakeRecipe, output_format: OutputFormat, channels: int) -> None:
    recipe = make_recipe(size=(24, 32))
    found = essence(encode(picture(channels=channels), output_format=output_format, recipe=recipe))
    assert np.array_equal(decode_apart(found), decode(found))


def test_apart_damage_is_told_in_the_same_words() -> None:
    damaged = essence(png(header(8, 8), (b"IDAT", b"no zlib stream"), (b"IEND", b"")))
    with pytest.raises(InvalidRequest) as apart:
        decode_apart(damaged)
    with pytest.raises(InvalidRequest) as here:
        decode(damaged)
    assert apart.value.message == here.value.message


def test_any_picture_that_can_be_decoded_is_sound_and_no_other_is() -> None:
    colours = Image.fromarray(picture())
    for output_format, mode in (("PNG", "P"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("GIF", "P")):
        file = saved(colours.convert(mode), output_format)
        require_sound(file)
        with pytest.raises(InvalidRequest) as refused:
            require_sound(file[:40])
        assert (refused.value.error_code, refused.value.param) == ("picture_expected", "image")
    with pytest.raises(InvalidRequest, match="64 million pixels"):
        require_sound(png(header(30_000, 30_000), (b"IDAT", zlib.compress(bytes(90_001))), (b"IEND", b"")))
