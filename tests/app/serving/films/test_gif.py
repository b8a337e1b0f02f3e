"""A GIF's time adds up, and 256 colours are spent where they show."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from app.serving.encode import Pixels
from app.serving.films.palette import SAMPLED_FRAMES, SAMPLED_PIXELS, Painter, Sampler
from tests.app.serving.films.conftest import WriteFilm, make_frames


def quantised(*frames: Pixels) -> list[Pixels]:
    """The frames as a palette of their own shows them."""
    sampler = Sampler()
    for frame in frames:
        sampler.add(frame)
    palette = sampler.palette()
    paint = Painter(palette)
    return [palette[paint(frame)] for frame in frames]


def ramp() -> Pixels:
    """All hues, in all strengths: [256, 256, 3]."""
    hue, value = np.meshgrid(np.arange(256), np.arange(255, -1, -1))
    saturated = np.stack([hue, np.full_like(hue, 200), value], axis=2).astype(np.uint8)
    return np.array(Image.fromarray(saturated, "HSV").convert("RGB"))


def means(pixels: Pixels) -> np.ndarray:
    """What squares of 8 x 8 look like from afar."""
    height, width, channels = pixels.shape
    return pixels.reshape(height // 8, 8, width // 8, 8, channels).mean(axis=(1, 3))


@pytest.mark.parametrize("fps", [7, 24, 30, 50])
@pytest.mark.parametrize("container", ["gif", "webp"])
def test_rounded_times_add_up_to_the_whole(write_film: WriteFilm, container: str, fps: int) -> None:
    with Image.open(write_film(container, frames=make_frames(60, 8, 8), fps=fps)) as image:
        times = [frame.convert("RGB") and frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    unit = 10 if container == "gif" else 1  # milliseconds

    assert len(times) == 60
    assert abs(sum(times) - 60_000 / fps) <= unit / 2
    assert max(times) - min(times) <= unit
    assert min(times) >= 20


def test_grey_films_keep_every_grey(write_film: WriteFilm) -> None:
    frames = make_frames(3, channels=1)
    with Image.open(write_film("gif", frames=frames)) as image:
        shown = [np.asarray(frame.convert("L"))[:, :, None] for frame in ImageSequence.Iterator(image)]

    assert np.array_equal(shown, frames)


def test_gradients_have_their_colours_on_average_and_no_steps() -> None:
    picture = ramp()
    (shown,) = quantised(picture)
    colours = np.unique(shown.reshape(-1, 3), axis=0).astype(np.float64)
    away = np.square(picture.reshape(-1, 1, 3)[::7] - colours).sum(axis=2)
    nearest = np.sqrt(away.min(axis=1)).mean()

    assert len(colours) > 250
    assert np.sqrt(np.square(means(shown) - means(picture)).sum(axis=2)).mean() < 0.4 * nearest


def test_flat_colours_stay_flat() -> None:
    picture = ramp()
    picture[:128] = (250, 250, 250)
    picture[128:160] = (200, 30, 60)
    (shown,) = quantised(picture)

    for part in (shown[:128], shown[128:160]):
        assert len(np.unique(part.reshape(-1, 3), axis=0)) == 1
    assert np.abs(shown[:160].astype(int) - picture[:160]).max() <= 3


def test_what_does_not_move_does_not_flicker() -> None:
    still, moving = ramp(), ramp()
    moving[:64, :64] = moving[:64, :64][::-1]
    first, second = quantised(still, moving)

    assert np.array_equal(first[64:], second[64:])
    assert not np.array_equal(first[:64, :64], second[:64, :64])


def test_the_sample_is_of_the_whole_film_and_bounded() -> None:
    sampler = Sampler()
    for frame in range(1000):
        sampler.add(np.full((4, 4, 3), frame // 4, np.uint8))
    greys = sampler.palette()[:, 0]

    assert SAMPLED_FRAMES // 2 <= len(sampler._samples) <= SAMPLED_FRAMES
    assert {sample.shape for sample in sampler._samples} == {(SAMPLED_PIXELS, 3)}
    assert set(range(0, 249, 8)) <= {int(grey) // 8 * 8 for grey in greys}
