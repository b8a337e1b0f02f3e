"""Turns one still picture of anyone's after another into pixels, in a process that may be limited, stuck or killed.

A program of its own, as `program` has it; it imports Pillow besides. What it is asked with: a picture's file, and the
format and the size that its head says. What it answers: channels, 3 or 4, and the pixels; or no channels, of a damaged
file. Of a file that is only to be looked at it answers what is wrong with it.
"""

import importlib
import io
import warnings
from typing import Final

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.serving.limited.program import Head, serve

LOOK: Final = "look"  # in a request: decode, and give no pixels
WRONG: Final = "wrong"
KINDS: Final = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS: Final = 64_000_000
NEEDED: Final = ("copy", "PIL.MpoImagePlugin", "PIL.TiffImagePlugin")  # what Pillow would import when it is too late

READERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "webp": WebPImageFile,
}


def pixels(file: bytes, output_format: str, size: tuple[int, int]) -> tuple[int, bytes]:
    """Channels, and uint8 [H, W, channels] as bytes. Raises whatever Pillow does for a damaged file, and ValueError for
    one of another size."""
    with READERS[output_format](io.BytesIO(file)) as image:
        if image.size != size:
            raise ValueError(f"It declares {size} and {image.size}.")
        mode = "RGBA" if image.has_transparency_data else "RGB"
        return len(mode), image.convert(mode).tobytes()


def wrong(file: bytes) -> str | None:
    """Why a PNG, JPEG, WebP or GIF of any kind cannot be decoded, in words that end a sentence; None where it can."""
    try:
        with Image.open(io.BytesIO(file), formats=KINDS) as image:
            image.load()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError, MemoryError):
        return f"it has more than {MAX_PIXELS / 1e6:.0f} million pixels"
    except Exception:  # noqa: BLE001 - decoders raise anything at all on hostile bytes
        return "it is damaged"
    return None


def answer(request: Head, file: bytes) -> tuple[Head, bytes]:
    """The answer to one request."""
    if LOOK in request:
        return {WRONG: wrong(file)}, b""
    try:
        width, height = request["size"]
        channels, found = pixels(file, request["format"], (width, height))
    except Exception:  # noqa: BLE001 - as above
        return {"channels": 0}, b""
    return {"channels": channels}, found


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
