"""Pictures that are none, or break or flood who decodes them, by name; and pictures that only look as if they did."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

Named = Iterator[tuple[str, bytes]]
PNG = b"\x89PNG\r\n\x1a\n"
SIDE = 48


def drawn(mode: str = "RGB", side: int = SIDE, seed: int = 0) -> Image.Image:
    """A small picture of smooth colours that no other seed gives."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR).convert(mode)


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    """As a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, depth: int = 8, colours: int = 2, *beside: bytes) -> bytes:
    """A PNG that declares one size, of any packed rows."""
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colours, 0, 0, 0))
    return PNG + header + b"".join(beside) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def undecodable() -> Named:
    """Files that begin as a PNG, JPEG, WebP or GIF does, and cannot be decoded."""
    whole = {kind: saved(drawn(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
    for kind, file in whole.items():
        yield f"the first bytes of a {kind}", file[:12]
        yield f"a {kind} that ends in its head", file[:30]
        yield f"noise that begins as a {kind}", file[:12] + np.random.default_rng(1).bytes(5000)
        if kind != "GIF":  # whose lost rows are black
            yield f"half a {kind}", file[: len(file) // 2]
    yield "30000x30000 in a few bytes", png(30_000, 30_000, zlib.compress(bytes(90_001 * 20), 9))
    yield "65500x65500", png(65_500, 65_500, zlib.compress(bytes(10_000), 9))
    yield "a PNG of no size", png(0, 0, zlib.compress(b""))
    yield "a PNG of 2^31 pixels a side", png(2**31 - 1, 2**31 - 1, b"")
    yield "a PNG of another depth", png(8, 8, zlib.compress(bytes(200)), depth=7)
    yield "a PNG without pixels", PNG + chunk(b"IHDR", struct.pack(">2I5B", 8, 8, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    yield "a PNG without a head", PNG + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    yield "a PNG of pixels that are not packed", png(8, 8, b"no zlib stream")
    yield "a PNG whose chunk claims 4 GiB", PNG + b"\xff\xff\xff\xff" + b"IHDR" + bytes(40)
    yield "a GIF of 65535x65535", b"GIF89a" + struct.pack("<2H3B", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b";"
    yield "a WebP of 16384x16384", b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + bytes(12)
    jpeg = bytearray(whole["JPEG"])
    start = jpeg.index(b"\xff\xc0")
    yield "a JPEG of 65500x65500", bytes(jpeg[: start + 5] + b"\xff\xdc\xff\xdc" + jpeg[start + 9 :])
    yield "a JPEG without tables", bytes(jpeg).replace(b"\xff\xdb", b"\xff\xfe")
    yield "a JPEG of no colours", bytes(jpeg[: start + 9] + b"\0" + jpeg[start + 10 :])


def strange() -> Named:
    """Files that are no PNG, JPEG, WebP or GIF, whatever they are called."""
    yield "nothing", b""
    yield "one byte", b"\x89"
    yield "a web page", b"<!doctype html><script>alert(1)</script>"
    yield "an SVG that asks for a file", b'<svg xmlns:x="x"><image x:href="file:///etc/passwd"/></svg>'
    yield "an SVG of a billion laughs", b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><svg>&c;</svg>'
    yield "a FITS", b"SIMPLE  =                    T" + bytes(2880)
    yield "an EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n(%pipe%id) (r) file\n"
    yield "a PDF", b"%PDF-1.7\n" + bytes(100)
    yield "a Photoshop document", b"8BPS\0\1" + bytes(100)
    yield "a TIFF", saved(drawn(), "TIFF")
    yield "a BMP", saved(drawn(), "BMP")
    yield "a GD", b"\xff\xfe" + struct.pack(">2H", 60_000, 60_000) + bytes(100)
    yield "an icon", saved(drawn(), "ICO")
    yield "a TGA", saved(drawn(), "TGA")
    yield "a PPM", saved(drawn(), "PPM")
    yield "a JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100)
    yield "an AVIF", b"\0\0\0\x20ftypavif" + bytes(100)
    yield "an ELF program", b"\x7fELF" + bytes(100)
    yield "a script", b"#!/bin/sh\ntouch /tmp/ganvas-was-here\n"


def odd() -> Named:
    """Pictures that can be decoded, each odd in its own way."""
    base = saved(drawn(seed=1), "PNG")
    yield "one pixel", saved(drawn(side=1), "PNG")
    yield "CMYK", saved(drawn("CMYK", seed=2), "JPEG")
    yield "16 bits", saved(Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 28), "PNG")
    yield "a palette with transparency", saved(drawn("P", seed=3), "PNG", transparency=3)
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "turned by EXIF", saved(drawn(seed=4), "JPEG", exif=turned)
    yield "EXIF that is none", saved(drawn(seed=5), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield "a colour profile of another space", saved(drawn(seed=6), "PNG", icc_profile=profile)
    yield (
        "a colour profile that is a bomb",
        base[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26), 9)) + base[33:],
    )
    yield (
        "a text that is a bomb",
        base[:33] + chunk(b"iTXt", b"x\0\1\0\0\0" + zlib.compress(bytes(2**26), 9)) + base[33:],
    )
    yield "texts that are bombs", base[:33] + chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**24), 9)) * 60 + base[33:]
    text = PngImagePlugin.PngInfo()
    text.add_text("ganvas", '{"checkpoint":"' + "0" * 64)
    yield "a recipe that breaks off", saved(drawn(seed=7), "PNG", pnginfo=text)
    frames = [drawn(seed=seed) for seed in range(8, 28)]
    yield "an APNG", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "an animated WebP", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "an animated GIF", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("inside.txt", "both a picture and a zip")
    yield "a PNG that is a zip too", saved(drawn(seed=29), "PNG") + place.getvalue()
    yield "a PNG with a program behind it", saved(drawn(seed=30), "PNG") + b"#!/bin/sh\n" + bytes(10_000)
