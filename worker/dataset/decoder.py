"""Turns one untrusted picture after another into pixels, in a process that may be limited, stuck or killed.

A program of its own: it reads requests on stdin and writes answers on stdout, imports Pillow and nothing of ours, and
is given no environment. A frame is two lengths, a JSON head and a body (a picture's file; R x R x 3 bytes of pixels).
"""

import io
import json
import math
import os
import resource
import struct
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Literal

from PIL import ExifTags, Image, ImageChops, ImageCms, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - importing WebP adds it to what Image.open knows

MAX_PIXELS = 64_000_000
MEMORY_BYTES = 1024**3
CPU_SECONDS = 20  # for one picture; 64 megapixels take about 4
GREY_TOLERANCE = 2  # of 255 between channels: what JPEG's rounding does to a grey picture
LENGTHS = struct.Struct("!II")

UPRIGHT: dict[int, Callable[[Image.Image], Image.Image]] = {  # EXIF orientation -> what undoes it
    2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
ON_THEIR_SIDE = (5, 6, 7, 8)

Format = Literal["PNG", "JPEG", "WEBP", "GIF"]
Head = dict[str, Any]


def write_frame(stream: BinaryIO, head: Head, body: bytes = b"") -> None:
    """Send one frame."""
    encoded = json.dumps(head).encode()
    stream.write(LENGTHS.pack(len(encoded), len(body)))
    stream.write(encoded)
    stream.write(body)
    stream.flush()


def read_frame(stream: BinaryIO, max_body: int) -> tuple[Head, bytes]:
    """Receive one frame; EOFError when the other side is gone, ValueError when it does not speak this."""
    head_bytes, body_bytes = LENGTHS.unpack(read_exactly(stream, LENGTHS.size))
    if head_bytes > 65_536 or body_bytes > max_body:
        raise ValueError(f"A frame of {head_bytes} + {body_bytes} bytes is not ours.")
    head = json.loads(read_exactly(stream, head_bytes))
    if not isinstance(head, dict):
        raise ValueError("A frame's head is an object.")
    return head, read_exactly(stream, body_bytes)


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """`size` bytes, or EOFError."""
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def measure(data: bytes, image_format: Format) -> Head:
    """Width and height as seen upright, from the header alone."""
    with Image.open(io.BytesIO(data), formats=[image_format]) as image:
        width, height = image.size
        if orientation(image) in ON_THEIR_SIDE:
            width, height = height, width
    return {"width": width, "height": height}


def prepare(
    data: bytes, image_format: Format, resolution: int, crop: str, background: tuple[int, int, int]
) -> tuple[Head, bytes]:
    """Facts about the picture, and its pixels: upright, square, sRGB, opaque, uint8 [R, R, 3].

    Everything but the resize happens on the small picture, so that 64 megapixels fit in `MEMORY_BYTES`.
    """
    fixes: list[str] = []
    with Image.open(io.BytesIO(data), formats=[image_format]) as image:
        # a JPEG of a camera may hold a preview as a second picture (MPO): that is no animation
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        turn = orientation(image)
        width, height = image.size
        image.draft(None, (4 * resolution, 4 * resolution))  # a large JPEG is decoded at a fraction of its size
        image.load()
        small = shrink(to_resizable(image, fixes), resolution, crop)
        small = to_srgb(small, image.info.get("icc_profile"), fixes)
    picture, alpha = lay_over(small, resolution, background)
    if turn in UPRIGHT:
        picture = UPRIGHT[turn](picture)
        fixes.append("turned upright")
    if turn in ON_THEIR_SIDE:
        width, height = height, width
    facts = {"width": width, "height": height, "animated": animated, "alpha": alpha, "grey": is_grey(picture)}
    return {**facts, "fixes": fixes}, picture.tobytes()


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) when there is none that can be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken EXIF raises half a dozen types, and spoils no pixel
        return 1


def to_resizable(image: Image.Image, fixes: list[str]) -> Image.Image:
    """The picture in a mode that Lanczos can be applied to: L, LA, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):
        fixes.append("16 bits to 8")
        wide = image if image.mode.startswith("I;16") else image.convert("I;16")
        return wide.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode not in ("LA", "RGBA") and image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") else image.convert("RGB")


def shrink(image: Image.Image, resolution: int, crop: str) -> Image.Image:
    """The middle square at `resolution`, or with crop "none" the whole picture at that length."""
    width, height = image.size
    if crop == "center":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    scale = resolution / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def to_srgb(image: Image.Image, profile: bytes | None, fixes: list[str]) -> Image.Image:
    """RGB or RGBA in sRGB; a profile that cannot be read is passed over, as browsers do."""
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colour = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode))
    if profile:
        try:
            source = ImageCms.getOpenProfile(io.BytesIO(profile))
            name = ImageCms.getProfileDescription(source).strip()[:60]
            if "srgb" not in name.lower():
                srgb = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(colour, source, srgb, outputMode="RGB")
                colour = converted or colour
                fixes.append(f"colour profile {name!r} to sRGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            fixes.append("unreadable colour profile passed over")
    if colour.mode == "CMYK":
        fixes.append("CMYK to RGB")
    colour = colour.convert("RGB")
    if alpha:
        colour.putalpha(alpha)
    return colour


def lay_over(image: Image.Image, resolution: int, background: tuple[int, int, int]) -> tuple[Image.Image, bool]:
    """The picture in the middle of a square of the background, and whether it lets any of it through."""
    square = Image.new("RGB", (resolution, resolution), background)
    corner = ((resolution - image.width) // 2, (resolution - image.height) // 2)
    if image.mode != "RGBA":
        square.paste(image, corner)
        return square, False
    square.paste(image.convert("RGB"), corner, mask=image.getchannel("A"))
    lowest, _ = image.getchannel("A").getextrema()
    return square, lowest != 255


def is_grey(picture: Image.Image) -> bool:
    """Whether the three channels agree everywhere."""
    red, green, blue = picture.split()
    differences = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return not any(max(difference.histogram()[GREY_TOLERANCE + 1 :]) for difference in differences)


def answer(request: Head, data: bytes) -> tuple[Head, bytes]:
    """The answer to one request: facts and pixels, or the verdict and reason for which there are none."""
    try:
        if request["resolution"] is None:
            return measure(data, request["format"]), b""
        return prepare(data, request["format"], request["resolution"], request["crop"], tuple(request["background"]))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return {"verdict": "too_large", "reason": f"More than {MAX_PIXELS / 1e6:.0f} million pixels."}, b""
    except UnidentifiedImageError:
        return {
            "verdict": "corrupt",
            "reason": f"It begins like a {request['format']}, but its header is damaged.",
        }, b""
    except MemoryError:
        return {"verdict": "too_large", "reason": f"It needs more than {MEMORY_BYTES / 1e9:.1f} GB to decode."}, b""
    except Exception as error:  # noqa: BLE001 - decoders raise anything at all on hostile bytes
        detail = str(error).strip().rstrip(".")[:200] or type(error).__name__
        return {"verdict": "corrupt", "reason": f"It cannot be decoded: {detail}."}, b""


def confine() -> None:
    """Give up what decoding does not need: memory, core dumps, writing files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform != "darwin":  # macOS refuses this limit; the wall and processor limits hold there
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def allow_cpu(seconds: int) -> None:
    """Let this process live for so many more seconds of processor time; then SIGXCPU ends it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))


def main() -> None:
    """Answer until stdin ends."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not speak into the frames
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("ignore")  # a sloppy tag spoils no pixel
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    confine()
    while True:
        try:
            request, data = read_frame(requests, MEMORY_BYTES)
        except EOFError:
            return
        allow_cpu(CPU_SECONDS)
        write_frame(answers, *answer(request, data))


if __name__ == "__main__":
    main()
