"""Differences are counted over all pictures together."""

import numpy as np
import pytest

from app.serving.difference import Tally, opaque


def test_a_tally_counts_frames_pixels_and_levels() -> None:
    chance = np.random.RandomState(0)
    found = chance.randint(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    expected = found.copy()
    expected[1, 2, 3] ^= 255
    expected[4, :2] += 3
    tally = Tally()
    for one, other in zip(found, expected, strict=True):
        tally.add(one, other)
    levels = np.abs(found.astype(int) - expected)
    said = tally.difference("why", film=True)
    assert said is not None
    assert (said.reason, said.frames, said.first) == ("why", 2, 1)
    assert (said.pixels, said.max) == (np.count_nonzero(levels.any(axis=3)), levels.max())
    assert (said.share, said.mean) == (pytest.approx(said.pixels / 210), pytest.approx(levels.mean()))
    alone = tally.difference("why")
    assert alone is not None
    assert (alone.frames, alone.first) == (None, None)


def test_equal_pictures_are_no_difference_and_transparency_is_one() -> None:
    grey = np.full((4, 4, 3), 9, np.uint8)
    clear = np.dstack([grey, np.full((4, 4), 254, np.uint8)])
    tally = Tally()
    tally.add(grey, grey)
    tally.add(grey, np.dstack([grey, np.full((4, 4), 255, np.uint8)]))
    assert tally.difference("why") is None
    tally.add(clear, grey)
    said = tally.difference("why", film=True)
    assert said is not None
    assert (said.first, said.pixels, said.max) == (2, 16, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_of_any_channels_is_rgb_and_keeps_its_transparency(channels: int) -> None:
    pixels = np.random.RandomState(1).randint(0, 250, (3, 5, channels), dtype=np.uint8)
    shown = opaque(pixels)
    colours = pixels if channels > 2 else np.repeat(pixels[:, :, :1], 3, axis=2)
    assert np.array_equal(shown[:, :, :3], colours[:, :, :3])
    if channels in (2, 4):
        assert np.array_equal(shown[:, :, 3], pixels[:, :, -1])
        pixels[:, :, -1] = 255
    assert opaque(pixels).shape == (3, 5, 3)
