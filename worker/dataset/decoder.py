"""Turns one untrusted picture after another into pixels, in a process that may be limited, stuck or killed.

A program of its own, as app.serving.limited.program has it; it imports Pillow besides. A request's body is a picture's
file, and an answer's R x R x 3 bytes of pixels.
"""

import importlib
import io
import warnings
from collections.abc import Callable
from typing import Literal

from PIL import ExifTags, Image, ImageChops, ImageCms, UnidentifiedImageError, WebPImagePlugin  # noqa: F401 - importing WebP adds it to what Image.open knows

from app.serving.limited.program import MEMORY_BYTES, Head, serve

MAX_PIXELS = 64_000_000
CPU_SECONDS = 20  # for one picture; 64 megapixels take about 4
NEEDED = (
    "copy",
    "PIL.MpoImagePlugin",
    "PIL.TiffImagePlugin",
)  # what Pillow imports when no file can be opened any more
GREY_TOLERANCE = 2  # of 255 between channels: what JPEG's rounding does to a grey picture

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
        width, height = image.size
        image.draft(None, (4 * resolution, 4 * resolution))  # a large JPEG is decoded at a fraction of its size
        image.load()
        turn = orientation(image)  # not before: it may load a PNG, and would swallow what is wrong with its pixels
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


def main() -> None:
    """Answer until stdin ends."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    Image.preinit()
    for module in NEEDED:
        importlib.import_module(module)
    warnings.simplefilter("ignore")  # a sloppy tag spoils no pixel
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    serve(answer)


if __name__ == "__main__":
    main()
