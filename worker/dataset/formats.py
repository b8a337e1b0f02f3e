"""What a file is, by its first bytes; names and extensions are only believed when a reason is worded."""

from pathlib import PurePosixPath

from worker.dataset.decoder import Format
from worker.dataset.verdicts import Refused, Verdict

PICTURE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
OTHERS = (  # (offset, magic, what it is)
    (0, b"PK\x03\x04", "A zip inside the zip; send its files directly."),
    (0, b"PK\x05\x06", "An empty zip inside the zip."),
    (0, b"Rar!", "An archive; send its files directly."),
    (0, b"7z\xbc\xaf", "An archive; send its files directly."),
    (0, b"\x1f\x8b", "An archive; send its files directly."),
    (0, b"BM", "A BMP; save it as PNG, JPEG or WebP."),
    (0, b"II*\x00", "A TIFF; save it as PNG, JPEG or WebP."),
    (0, b"MM\x00*", "A TIFF; save it as PNG, JPEG or WebP."),
    (0, b"8BPS", "A Photoshop document; export it as PNG, JPEG or WebP."),
    (0, b"%PDF", "A PDF; export its pages as PNG, JPEG or WebP."),
    (0, b"%!PS", "PostScript; export it as PNG, JPEG or WebP."),
    (4, b"ftypheic", "A HEIC photograph; export it as PNG, JPEG or WebP."),
    (4, b"ftypmif1", "A HEIF photograph; export it as PNG, JPEG or WebP."),
    (4, b"ftypavif", "An AVIF; save it as PNG, JPEG or WebP."),
    (4, b"ftyp", "A video; send frames of it as PNG, JPEG or WebP."),
)
MARKUP = (
    (b"<svg", "An SVG; export it as PNG, JPEG or WebP."),
    (b"<html", "A web page."),
    (b"<!doctype", "A web page."),
)


def picture_format(data: bytes, name: str) -> Format:
    """The format of a picture; Refused, with the best reason its first bytes give, when it is none we take."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    raise refusal(data, name)


def refusal(data: bytes, name: str) -> Refused:
    """Why a file that is no PNG, JPEG, WebP or GIF is not taken."""
    if not data:
        return Refused(Verdict.CORRUPT, "It is empty.")
    for offset, magic, reason in OTHERS:
        if data[offset:].startswith(magic):
            return Refused(Verdict.UNSUPPORTED, reason)
    beginning = data[:1024].lower()
    for tag, reason in MARKUP:
        if tag in beginning:
            return Refused(Verdict.UNSUPPORTED, reason)
    extension = PurePosixPath(name).suffix.lower()
    if extension in PICTURE_EXTENSIONS:
        return Refused(Verdict.CORRUPT, f"Its name ends in {extension}, but its content is no picture.")
    return Refused(Verdict.UNSUPPORTED, "Not a picture: PNG, JPEG, WebP and GIF are.")
