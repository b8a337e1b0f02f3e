"""Content decides, whatever the name says."""

from collections.abc import Callable

import pytest
from PIL import Image

from worker.dataset.decoder import Format
from worker.dataset.formats import picture_format
from worker.dataset.verdicts import Refused, Verdict


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_picture_is_known_by_its_content(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes], image_format: Format
) -> None:
    assert picture_format(encode(draw(), image_format), "misleading.txt") == image_format


@pytest.mark.parametrize("image_format", ["BMP", "TIFF", "PPM", "ICO", "TGA"])
def test_other_formats_are_not_taken(
    draw: Callable[..., Image.Image], encode: Callable[..., bytes], image_format: Format
) -> None:
    with pytest.raises(Refused) as refused:
        picture_format(encode(draw(), image_format), f"picture.{image_format.lower()}")
    assert refused.value.verdict == Verdict.UNSUPPORTED
    assert "PNG" in refused.value.reason


@pytest.mark.parametrize(
    ("name", "data", "verdict", "said"),
    [
        ("a.png", b"", Verdict.CORRUPT, "empty"),
        ("a.png", b"garbage", Verdict.CORRUPT, "no picture"),
        ("a.png", b"<!DOCTYPE html><html>", Verdict.UNSUPPORTED, "web page"),
        ("a.svg", b"<?xml?><svg/>", Verdict.UNSUPPORTED, "SVG"),
        ("a.zip", b"PK\x03\x04...", Verdict.UNSUPPORTED, "zip inside"),
        ("a.heic", b"\0\0\0\x18ftypheic", Verdict.UNSUPPORTED, "HEIC"),
        ("a.mp4", b"\0\0\0\x18ftypisom", Verdict.UNSUPPORTED, "video"),
        ("a.pdf", b"%PDF-1.7", Verdict.UNSUPPORTED, "PDF"),
        ("notes.txt", b"hello", Verdict.UNSUPPORTED, "Not a picture"),
    ],
)
def test_what_is_no_picture_says_what_it_is(name: str, data: bytes, verdict: Verdict, said: str) -> None:
    with pytest.raises(Refused) as refused:
        picture_format(data, name)
    assert refused.value.verdict == verdict
    assert said in refused.value.reason
