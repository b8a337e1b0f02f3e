"""The quantisers of a WebP tell its quality, for pictures of every kind."""

import io
import struct
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from app.serving.vp8 import frame_size, lossless_size, quantisers


def frame(picture: Image.Image, quality: int, method: int) -> bytes:
    """The VP8 chunk of a picture's WebP, which without metadata is the first."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=method)
    data = file.getvalue()
    assert data[12:16] == b"VP8 "
    return data[20 : 20 + struct.unpack("<I", data[16:20])[0]]


def picture(width: int, height: int, noise: int) -> Image.Image:
    random = np.random.RandomState(0)
    slope = np.linspace(0, 215, width)[None, :, None] * np.ones((height, 1, 3))
    return Image.fromarray((slope + random.randint(0, noise + 1, slope.shape)).astype(np.uint8))


@pytest.mark.parametrize("method", [0, 4])
@pytest.mark.parametrize("noise", [0, 10, 40])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 48), (96, 96)])
def test_neither_quantiser_rises_with_the_quality(size: tuple[int, int], noise: int, method: int) -> None:
    found = [quantisers(frame(picture(*size, noise), quality, method)) for quality in range(0, 101, 4)]
    assert found[0] == (127, 127)
    assert found[-1] == (0, 0)
    assert all(
        coarse >= next_coarse and fine >= next_fine for (coarse, fine), (next_coarse, next_fine) in pairwise(found)
    )
    assert all(coarse >= fine for coarse, fine in found)
    assert len(set(found)) > 20


def test_a_frame_has_the_size_it_was_saved_with() -> None:
    for size in ((1, 1), (5, 3), (300, 7)):
        assert frame_size(frame(picture(*size, 9), 80, 0)) == size


def test_a_lossless_frame_has_the_size_it_was_saved_with() -> None:
    for size in ((1, 1), (5, 3), (300, 7), (16_383, 2)):
        file = io.BytesIO()
        Image.new("RGB", size).save(file, "WEBP", lossless=True)
        data = file.getvalue()
        assert data[12:16] == b"VP8L"
        assert lossless_size(data[20:]) == size
    assert lossless_size(b"\x2e" + data[21:]) is None
    assert lossless_size(data[20:24] + b"\xff") is None  # of a later version
    with pytest.raises(struct.error):
        lossless_size(data[20:24])


def test_a_frame_that_is_none_or_is_cut_off_is_told() -> None:
    whole = frame(picture(16, 16, 9), 80, 0)
    assert frame_size(b"\0" * 40) is None
    for end in range(10):
        with pytest.raises(struct.error):
            frame_size(whole[:end])
        with pytest.raises(IndexError):
            quantisers(whole[:end])
