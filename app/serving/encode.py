"""Pixels to files: PNG, JPEG or WebP, each with its recipe and the mark of AI-made media inside."""

import io
import struct
from collections.abc import Mapping
from functools import lru_cache
from mmap import mmap
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from app.serving.film import AnyRecipe, FilmRecipe, read_canonical
from app.serving.films.finding import read_recipe_text
from app.serving.recipe import MetadataLevel, OutputFormat, Recipe

Pixels = NDArray[np.uint8]  # [H, W, C]

MEDIA_TYPES: dict[OutputFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
DEFAULT_QUALITY = 92  # of JPEG and WebP: no blocks to be seen, a third of the bytes of 100
WEBP_METHOD = 0  # of 0 to 6: a third to a half of the time of Pillow's 4, for a tenth more bytes (docs/adr/0010)
LOSSLESS_WEBP = 100  # the quality at which a WebP keeps every pixel; the next lower one loses some
LOSSLESS_EFFORT = 0  # of 0 to 100: at this method more of it takes longer and saves nothing

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> grey, grey + alpha, RGB, RGBA
UP_FILTER = 2  # each byte minus the one above: GAN pictures are smooth, and enlarged ones repeat their rows
DEFLATE_LEVEL = 1  # of igzip's 0 to 3: 2 is no smaller here, 0 is hardly quicker at 256 px and much larger
DEFLATE_WINDOW = 9  # bits, 512 bytes: matches from further away are chance, and cost more than what they stand for

# IPTC's term for media made by a trained model; readers look for it in XMP, so it is there at every metadata level.
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
).encode()

# TIFF's header, a directory that points to EXIF's own, and that one, of the comment alone: length and place to follow.
EXIF_DIRECTORIES = struct.Struct(">2sHI" + 2 * "HHHIII")
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
TIFF_LONG, TIFF_UNDEFINED = 4, 7  # types of a value
ASCII_COMMENT = b"ASCII\0\0\0"  # EXIF 2.3, 4.6.5: the character code that a UserComment opens with


def encode(
    image: Pixels,
    *,
    output_format: OutputFormat,
    recipe: Recipe,
    compression: int | None = None,
    metadata: MetadataLevel = "full",
) -> bytes:
    """The file of one picture, resampled to the recipe's size; on one kind of processor the same arguments give the
    same bytes, and a PNG the same pixels on any.

    compression: quality of JPEG and WebP, 0-100; a WebP of 100 is lossless, and a PNG always is and ignores it.
    metadata: minimal leaves the recipe out and keeps the mark of AI-made media.
    """
    pixels = resample(image, recipe.size)
    told = recipe if metadata == "full" else None
    if output_format == "png":
        return _png(pixels, {} if told is None else _texts(told))
    return _by_pillow(pixels, output_format, compression, None if told is None else exif(told.canonical_json()))


def marked_png(image: Pixels) -> bytes:
    """A PNG of these very pixels, [H, W, C], that carries the mark of AI-made media alone."""
    return _png(image, {})


def marked(image: Pixels, output_format: OutputFormat, compression: int) -> bytes:
    """The same in another format, as encode() has it."""
    return _by_pillow(image, output_format, compression, None)


def sheet_png(image: Pixels, film: FilmRecipe | None) -> bytes:
    """A PNG of a whole sheet, [H, W, C], with its recipe and its line for galleries; None leaves both out."""
    return _png(image, {} if film is None else _texts(film))


def resample(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Nearest resampling, [H, W, C] to (width, height): the pixel whose square holds the new pixel's centre."""
    wanted = size[::-1]
    # Picking single pixels is slower than picking whole rows: columns first where rows are added, last where rows go.
    for axis in (1, 0) if wanted[0] > image.shape[0] else (0, 1):
        if wanted[axis] != image.shape[axis]:
            image = image.take(_nearest(image.shape[axis], wanted[axis]), axis=axis)
    return image


def _nearest(length: int, wanted: int) -> NDArray[np.intp]:
    return (2 * np.arange(wanted) + 1) * length // (2 * wanted)


def _rgb(image: Pixels) -> Image.Image:
    channels = image.shape[2]
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return picture if channels == 3 else picture.convert("RGB")


def exif(text: str) -> bytes:
    """A recipe's canonical form as UserComment: what Pillow writes of it, in a twentieth of the time."""
    comment = ASCII_COMMENT + text.encode()
    header, entry = 8, 18  # bytes; a directory of one entry, its count and the place of the next directory with it
    directories = EXIF_DIRECTORIES.pack(
        *(b"MM", 42, header),
        *(1, EXIF_IFD, TIFF_LONG, 1, header + entry, 0),
        *(1, USER_COMMENT, TIFF_UNDEFINED, len(comment), header + 2 * entry, 0),
    )
    return b"Exif\0\0" + directories + comment


def _by_pillow(image: Pixels, output_format: OutputFormat, compression: int | None, recipe_exif: bytes | None) -> bytes:
    """JPEG or WebP."""
    options: dict[str, Any] = {"quality": DEFAULT_QUALITY if compression is None else compression, "xmp": XMP}
    if recipe_exif is not None:
        options["exif"] = recipe_exif
    if output_format == "webp":
        options["method"] = WEBP_METHOD
        if compression == LOSSLESS_WEBP:
            options |= {"lossless": True, "quality": LOSSLESS_EFFORT}
    file = io.BytesIO()
    _rgb(image).save(file, output_format, **options)
    return file.getvalue()


def _texts(recipe: AnyRecipe) -> dict[str, str]:
    return {"ganvas": recipe.canonical_json(), "parameters": recipe.parameters_line()}


def _png(image: Pixels, texts: Mapping[str, str]) -> bytes:
    """A PNG of one fixed filter: 6 to 10 times as quick as Pillow's quickest, in files of its size (docs/adr/0010)."""
    height, width, channels = image.shape
    rows = np.empty((height, 1 + width * channels), dtype=np.uint8)  # a filter byte opens each row
    flat = image.reshape(height, width * channels)
    rows[:, 0] = UP_FILTER
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])  # modulo 256
    parts = [_opening(width, height, channels), *(_text(key, text) for key, text in texts.items())]
    return b"".join((*parts, MARK, *_chunk(b"IDAT", deflate(rows)), END))


def deflate(rows: Pixels) -> bytes:
    """Filtered rows as a zlib stream."""
    packed: bytes = isal_zlib.compress(rows, DEFLATE_LEVEL, wbits=DEFLATE_WINDOW)
    return packed


@lru_cache
def _opening(width: int, height: int, channels: int) -> bytes:
    header = struct.pack(">2I5B", width, height, 8, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    return PNG_SIGNATURE + b"".join(_chunk(b"IHDR", header))


def _text(key: str, text: str) -> bytes:
    """A tEXt chunk, which readers prefer; iTXt where Latin-1 cannot say it."""
    try:
        return b"".join(_chunk(b"tEXt", key.encode() + b"\0" + text.encode("latin-1")))
    except UnicodeEncodeError:
        return b"".join(_chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + text.encode()))


def _chunk(kind: bytes, data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """In parts, so that the pixels are copied once, into the file."""
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return len(data).to_bytes(4), kind, data, checksum.to_bytes(4)


MARK = b"".join(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP))  # uncompressed, no language
END = b"".join(_chunk(b"IEND", b""))


def read_recipe(data: bytes | mmap) -> AnyRecipe | None:
    """The recipe inside one of our files, a picture or a film in any container; None for any other file.

    The file is anyone's: it is searched for the canonical form, and nothing in it is parsed until that is found.
    """
    text = read_recipe_text(data)
    return None if text is None else read_canonical(text)
