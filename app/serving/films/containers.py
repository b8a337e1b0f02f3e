"""What a film can be kept in, and how one of those files begins."""

from typing import Final, Literal

FilmFormat = Literal["mp4", "webm", "webp", "gif", "zip"]

MEDIA_TYPES: Final[dict[FilmFormat, str]] = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "webp": "image/webp",
    "gif": "image/gif",
    "zip": "application/zip",
}
HEAD_BYTES: Final = 32  # that tell one from another

WEBP_FLAGS, WEBP_MOVING, WEBP_EXIF, WEBP_XMP, WEBP_ALPHA = 20, 0x02, 0x08, 0x04, 0x10  # byte of VP8X, and its bits


def film_format(data: bytes) -> FilmFormat | None:
    """The container that a file begins as, from its first `HEAD_BYTES` or more; None where that is no film.

    A still WebP is a picture and no film.
    """
    if data[4:8] == b"ftyp":
        return "mp4"
    if data.startswith(b"\x1a\x45\xdf\xa3"):  # EBML
        return "webm"
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > WEBP_FLAGS:
        return "webp" if data[WEBP_FLAGS] & WEBP_MOVING else None
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    return "zip" if data.startswith(b"PK\3\4") else None
