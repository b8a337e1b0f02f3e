"""The decoder's arithmetic, against Pillow's own and by hand."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from app.serving.limited.program import Head, read_frame, write_frame
from worker.dataset import decoder
from worker.dataset.decoder import Format

WHITE = (255, 255, 255)


def prepared(
    data: bytes, image_format: Format = "PNG", *, resolution: int = 32, crop: str = "center"
) -> tuple[Head, np.ndarray]:
    facts, pixels = decoder.prepare(data, image_format, resolution, crop, WHITE)
    return facts, np.frombuffer(pixels, np.uint8).reshape(resolution, resolution, 3)


def difference(one: np.ndarray, other: np.ndarray | Image.Image) -> float:
    return float(np.abs(one.astype(int) - np.asarray(other).astype(int)).mean())


def test_a_picture_of_the_right_size_comes_back_untouched(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = draw(width=32, height=32)
    facts, pixels = prepared(encode(picture))
    assert np.array_equal(pixels, np.asarray(picture))
    assert facts == {"width": 32, "height": 32, "animated": False, "alpha": False, "grey": False, "fixes": []}


def test_the_middle_is_cropped_and_resized_by_lanczos(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = draw(width=100, height=60)
    expected = picture.crop((20, 0, 80, 60)).resize((32, 32), Image.Resampling.LANCZOS)
    _, pixels = prepared(encode(picture))
    assert np.array_equal(pixels[:, 4:-4], np.asarray(expected)[:, 4:-4])
    assert difference(pixels, expected) < 0.5  # at the cut Lanczos may look beyond it


def test_without_a_crop_the_whole_picture_stands_on_the_background(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = draw(width=64, height=32)
    _, pixels = prepared(encode(picture), crop="none")
    assert np.array_equal(pixels[8:24], np.asarray(picture.resize((32, 16), Image.Resampling.LANCZOS)))
    assert (pixels[:8] == 255).all()
    assert (pixels[24:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(draw(3, 48, 32), "JPEG", quality=95, exif=exif)
    facts, pixels = prepared(data, "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    assert difference(pixels, ImageOps.fit(upright, (32, 32), Image.Resampling.LANCZOS)) < 1
    assert (facts["width"], facts["height"]) == upright.size
    assert decoder.measure(data, "JPEG") == {"width": upright.width, "height": upright.height}


def test_broken_exif_spoils_no_picture(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> None:
    data = encode(draw(width=32, height=32), "JPEG", exif=b"Exif\x00\x00not a TIFF at all")
    assert prepared(data, "JPEG")[0]["width"] == 32


def test_transparency_shows_the_background_and_hidden_colours_do_not_bleed(encode: Callable[..., bytes]) -> None:
    picture = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    picture.paste((200, 0, 0, 255), (0, 0, 32, 64))
    facts, pixels = prepared(encode(picture))
    assert facts["alpha"]
    assert (pixels[:, -10:] == 255).all()
    assert (pixels[:, :10] == (200, 0, 0)).all()
    # red and white meet in pinks: never more green than blue, as the hidden green would bring
    assert np.array_equal(pixels[..., 1], pixels[..., 2])


def test_an_alpha_channel_that_hides_nothing_is_not_transparency(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    facts, _ = prepared(encode(draw().convert("RGBA")))
    assert not facts["alpha"]


def test_a_palette_with_a_transparent_colour_is_laid_over_the_background(encode: Callable[..., bytes]) -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.paste(0, (0, 0, 16, 32))
    facts, pixels = prepared(encode(picture, transparency=0))
    assert facts["alpha"]
    assert (pixels[:, :16] == 255).all()
    assert (pixels[:, 16:] == (10, 20, 30)).all()


def test_cmyk_becomes_rgb(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> None:
    picture = draw(5, 32, 32)
    facts, pixels = prepared(encode(picture.convert("CMYK"), "JPEG", quality=95), "JPEG")
    assert difference(pixels, picture) < 3
    assert facts["fixes"] == ["CMYK to RGB"]


def test_sixteen_bit_grey_keeps_its_tones(encode: Callable[..., bytes]) -> None:
    ramp = np.linspace(0, 65_535, 32).astype(np.uint16)[None].repeat(32, axis=0)
    facts, pixels = prepared(encode(Image.fromarray(ramp)))
    assert np.abs(pixels[..., 0].astype(int) - ramp // 257).max() <= 1
    assert facts["grey"]
    assert facts["fixes"] == ["16 bits to 8"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_is_taken(draw: Callable[..., Image.Image], encode: Callable[..., bytes], mode: str) -> None:
    facts, pixels = prepared(encode(draw(width=40, height=40).convert(mode)))
    assert pixels.std() > 0
    assert facts["grey"] == (mode in ("1", "L", "LA"))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes], image_format: Format
) -> None:
    frames = [draw(seed, 32, 32).quantize(64).convert("RGB") for seed in range(3)]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    facts, pixels = prepared(data, image_format)
    assert facts["animated"]
    assert difference(pixels, frames[0]) < 2


def test_the_preview_inside_a_cameras_jpeg_is_no_animation(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    data = encode(draw(), "MPO", save_all=True, append_images=[draw(1)])
    assert not prepared(data, "JPEG")[0]["animated"]


def test_a_foreign_colour_profile_is_translated(encode: Callable[..., bytes]) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "sBGR".encode("utf-16-be"))
    facts, pixels = prepared(encode(Image.new("RGB", (32, 32), (200, 50, 10)), icc_profile=swapped))
    assert np.abs(pixels.astype(int) - (10, 50, 200)).max() <= 1
    assert facts["fixes"][0].startswith("colour profile 'sBGR")


def test_a_profile_that_does_not_fit_is_passed_over(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    facts, _ = prepared(encode(draw(), icc_profile=lab.tobytes()))
    assert facts["fixes"] == ["unreadable colour profile passed over"]  # a profile of the wrong kind
    facts, _ = prepared(encode(draw(), icc_profile=b"nonsense" * 50))
    assert facts["fixes"] == ["unreadable colour profile passed over"]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert prepared(encode(draw(), icc_profile=srgb.tobytes()))[0]["fixes"] == []


def test_a_large_jpeg_decoded_at_a_fraction_looks_like_the_whole(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    picture = draw(9, 1600, 1200)
    _, pixels = prepared(encode(picture, "JPEG", quality=95), "JPEG")
    assert difference(pixels, ImageOps.fit(picture, (32, 32), Image.Resampling.LANCZOS)) < 1.5


def png_bomb(side: int) -> bytes:
    """A PNG that claims side x side pixels, and holds a few of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def ask(*requests: tuple[Head, bytes]) -> list[Head]:
    """The answers of a real decoder process."""
    script = Path(decoder.__file__)
    with subprocess.Popen([sys.executable, "-I", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        heads = []
        for asked, body in requests:
            head = {"crop": "center", "background": WHITE, "cpu_seconds": decoder.CPU_SECONDS, **asked}
            write_frame(process.stdin, head, body)
            heads.append(read_frame(process.stdout, 10_000_000)[0])
    return heads


@pytest.mark.parametrize("side", [9_000, 30_000, 65_500])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(side: int) -> None:
    (head,) = ask(({"format": "PNG", "resolution": 32}, png_bomb(side)))
    assert head == {"verdict": "too_large", "reason": "More than 64 million pixels."}


def test_after_a_bad_picture_the_process_goes_on(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    jpeg = encode(draw(width=500, height=500), "JPEG")
    heads = ask(
        ({"format": "JPEG", "resolution": 32}, jpeg[: len(jpeg) // 2]),
        ({"format": "PNG", "resolution": 32}, b"\x89PNG\r\n\x1a\n" + os.urandom(300)),
        ({"format": "WEBP", "resolution": 32}, b"RIFF\xff\xff\xff\xffWEBPVP8 " + os.urandom(300)),
        ({"format": "GIF", "resolution": 32}, b"GIF89a" + os.urandom(300)),
        ({"format": "JPEG", "resolution": 32}, jpeg),
    )
    assert [head.get("verdict") for head in heads[:3]] == ["corrupt", "corrupt", "corrupt"]
    assert "truncated" in heads[0]["reason"]
    assert heads[3]["verdict"] in ("corrupt", "too_large")
    assert heads[4]["width"] == 500


def test_damaged_pixels_are_no_black_picture(draw: Callable[..., Image.Image], encode: Callable[..., bytes]) -> None:
    data = bytearray(encode(draw(width=64, height=64)))
    start = data.index(b"IDAT") + 40
    data[start : start + 20] = bytes(20)
    (head,) = ask(({"format": "PNG", "resolution": 32}, bytes(data)))
    assert head["verdict"] == "corrupt"


def test_a_picture_at_the_limit_fits_in_the_memory_allowed(encode: Callable[..., bytes]) -> None:
    data = encode(Image.new("RGBA", (8_000, 8_000), (1, 2, 3, 4)), compress_level=1)
    (head,) = ask(({"format": "PNG", "resolution": 32}, data))
    assert head["width"] == 8_000


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit address space")
def test_memory_beyond_the_limit_is_a_verdict_and_not_a_crash(encode: Callable[..., bytes]) -> None:
    program = (
        "import runpy, sys; from app.serving.limited.program import confine; module = runpy.run_path(sys.argv[1]);"
        "confine(); answer = module['answer'];"
        "answer.__globals__['prepare'] = lambda *_: bytearray(2 * 1024**3);"
        "print(answer({'format': 'PNG', 'resolution': 8, 'crop': 'center', 'background': [0, 0, 0]}, b'')[0])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, decoder.__file__], capture_output=True, text=True, check=True
    )
    assert "too_large" in done.stdout
