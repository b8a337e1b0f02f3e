"""Frames are where their recipe says, with the same bits in whatever order and company they are asked for."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from app.core import latents
from app.core.storage import Storage
from app.serving.encode import Pixels
from app.serving.film import FilmRecipe
from app.serving.frames import FADE_STEPS, Place, fade, frame_size, frame_ws, frames
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator
from app.serving.point import Point, Slider, Variation
from models.latents.noise_loop import noise_loop
from models.latents.seeds import z_from_seeds

KEYFRAMES = (Point(seed=1), Point(seed=2, truncation_psi=1.0), Point(seed=3))
WAYS = [("slerp", "z"), ("linear", "z"), ("linear", "w"), ("spline", "w"), ("noise", "z")]


@pytest.fixture(scope="module")
def loaded(studio_loader: Loader, studio_checkpoints: list[str]) -> LoadedGenerator:
    return studio_loader.get(studio_checkpoints[0])


@pytest.fixture(scope="module")
def prompted(studio_loader: Loader, studio_prompted: str) -> LoadedGenerator:
    return studio_loader.get(studio_prompted)


def film(path: str = "slerp", space: str = "z", **fields: Any) -> FilmRecipe:
    noise = path == "noise"
    base = {"kind": "loop", "model": "m", "checkpoint": "a" * 64, "path": path, "space": space, "frames": 9, "fps": 24}
    base |= {"keyframes": KEYFRAMES[:1] if noise else KEYFRAMES, "size": (32, 32)}
    base |= {"radius": 1.5} if noise else {"easing": "linear"}
    return FilmRecipe(**base | fields)


def paint(loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
    yield from loaded.render_w(place(numbers))


@pytest.mark.parametrize(("path", "space"), WAYS)
def test_a_frame_has_the_same_bits_in_any_order_and_company(path: str, space: str, prompted: LoadedGenerator) -> None:
    made = film(path, space, frames=21)
    together = frame_ws(prompted, made, range(21))
    order = np.random.RandomState(0).permutation(21).tolist()
    assert torch.equal(frame_ws(prompted, made, order), together[order])
    assert torch.equal(torch.cat([frame_ws(prompted, made, [index]) for index in range(21)]), together)


@pytest.mark.parametrize(("path", "space"), WAYS[:4])
@pytest.mark.parametrize("kind", ["loop", "walk"])
def test_a_path_passes_its_keyframes_themselves(
    kind: str, path: str, space: str, loaded: LoadedGenerator, prompted: LoadedGenerator
) -> None:
    places = [0, 3, 6] if kind == "loop" else [0, 4, 8]
    for each in (loaded, prompted):
        ws = frame_ws(each, film(path, space, kind=kind), places)
        assert torch.equal(ws, each.place(KEYFRAMES))


def test_slerp_turns_evenly_from_one_latent_to_the_next(loaded: LoadedGenerator) -> None:
    first, second = z_from_seeds([1, 2], loaded.generator.z_dim).astype(np.float64)
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    angle = np.arccos(first @ second / np.prod(lengths))
    way = np.sin(angle * 2 / 3) * first / lengths[0] + np.sin(angle / 3) * second / lengths[1]
    z = way / np.sin(angle) * (lengths[0] * 2 / 3 + lengths[1] / 3)
    with torch.inference_mode():
        w = loaded.generator.mapping(torch.from_numpy(z.astype(np.float32))[None], None)[0]
    center, psi = loaded.generator.w_avg, 0.7 * 2 / 3 + 1.0 / 3  # psi goes from keyframe to keyframe too
    expected = center + psi * (w - center)
    assert torch.allclose(frame_ws(loaded, film(), [1])[0], expected, atol=1e-5)


def test_a_noise_loop_maps_its_latents_and_closes(loaded: LoadedGenerator) -> None:
    z = noise_loop(1, loaded.generator.z_dim, 9, 1.5)
    with torch.inference_mode():
        w = loaded.generator.mapping(torch.from_numpy(z), None)
    center = loaded.generator.w_avg
    ws = frame_ws(loaded, film("noise"), range(9))
    assert torch.allclose(ws, center + 0.7 * (w - center), atol=1e-5)
    steps = [(ws[index] - ws[index - 1]).norm().item() for index in range(9)]
    assert steps[0] < 1.5 * max(steps[1:])


@pytest.mark.parametrize(("path", "space"), WAYS)
def test_a_loop_that_starts_later_is_the_same_loop(path: str, space: str, loaded: LoadedGenerator) -> None:
    ws, later = (frame_ws(loaded, film(path, space, phase=phase), range(9)) for phase in (0, 4))
    assert torch.equal(later, ws.roll(-4, dims=0))
    assert not torch.equal(later, ws)


def test_between_two_prompts_a_latent_is_told_both(prompted: LoadedGenerator) -> None:
    first, second = Point(seed=1, prompt="red cat"), Point(seed=1, prompt="blue")
    made = film("linear", keyframes=(first, second), frames=4)
    red, half, blue = frame_ws(prompted, made, [0, 1, 2])
    assert torch.equal(red, prompted.place([first])[0])
    assert torch.equal(blue, prompted.place([second])[0])
    assert torch.allclose(half, (red + blue) / 2, atol=1e-5)
    assert not torch.allclose(red, blue, atol=1e-2)


def test_sliders_move_from_keyframe_to_keyframe(loaded: LoadedGenerator, studio_storage: Storage) -> None:
    shape = loaded.generator.num_ws, loaded.generator.w_dim
    steps = np.random.RandomState(0).randn(2, *shape).astype(np.float32)
    rust, age = (latents.store(studio_storage, step) for step in steps)
    keyframes = (
        Point(seed=1, sliders=(Slider(name="rust", amount=2.0, offset=rust),)),
        Point(seed=1, sliders=(Slider(name="age", amount=-1.0, offset=age),)),
    )
    plain = loaded.place([Point(seed=1)])[0]
    for path, space in (("slerp", "z"), ("linear", "w")):
        half = frame_ws(loaded, film(path, space, keyframes=keyframes, frames=4), [1])[0]
        assert torch.allclose(half, plain + torch.from_numpy(1.0 * steps[0] - 0.5 * steps[1]), atol=1e-5)


def test_what_is_no_place_in_z_is_passed_in_w(loaded: LoadedGenerator) -> None:
    keyframes = (Point(seed=1, variations=(Variation(seed=5, strength=0.5),)), Point(seed=2))
    ws = frame_ws(loaded, film("linear", "w", keyframes=keyframes, frames=4), [0, 1, 2])
    ends = loaded.place(keyframes)
    assert torch.equal(ws[[0, 2]], ends)
    assert torch.allclose(ws[1], ends.mean(dim=0), atol=1e-6)


def test_frames_are_the_pictures_of_their_w_at_the_films_size(loaded: LoadedGenerator, studio_loader: Loader) -> None:
    made = film(checkpoint=loaded.sha256, size=(64, 32))
    shown = list(frames(made, studio_loader.get, paint, [2, 5]))
    native: list[Pixels] = list(loaded.render_w(frame_ws(loaded, made, [2, 5])))
    assert [frame.shape for frame in shown] == [(32, 64, 3)] * 2
    for frame, picture in zip(shown, native, strict=True):
        assert np.array_equal(frame[:, ::2], picture)


def test_a_grid_shows_each_checkpoints_keyframes_at_each_seed(
    studio_loader: Loader, studio_checkpoints: list[str]
) -> None:
    shas = studio_checkpoints[:2]
    keyframes = (Point(seed=0), Point(seed=0, truncation_psi=0.1))
    made = FilmRecipe(
        kind="grid", model="m", checkpoint=shas[-1], checkpoints=shas, keyframes=keyframes, seeds=(4, 5, 6), columns=3,
        size=(32, 32),
    )  # fmt: skip
    (sheet,) = frames(made, studio_loader.get, paint, [0])
    assert sheet.shape[:2] == frame_size(made)[::-1]
    (expected,) = studio_loader.get(shas[1]).render([Point(seed=6, truncation_psi=0.1)])  # the last of the last row
    assert np.array_equal(sheet[-34:-2, -34:-2], expected)
    (above,) = studio_loader.get(shas[1]).render([Point(seed=5)])
    assert np.array_equal(sheet[2 + 2 * 34 : 34 + 2 * 34, 2 + 34 : 34 + 34], above)


def test_a_growth_fades_from_the_first_checkpoint_to_the_last(
    studio_loader: Loader, studio_checkpoints: list[str]
) -> None:
    shas = studio_checkpoints
    made = FilmRecipe(
        kind="growth", model="m", checkpoint=shas[-1], checkpoints=shas, keyframes=(Point(seed=7),), easing="linear",
        frames=9, fps=24, columns=1, size=(32, 32),
    )  # fmt: skip
    shown = list(frames(made, studio_loader.get, paint, range(9)))
    stills = [studio_loader.get(sha256).render([Point(seed=7)])[0] for sha256 in shas]
    for index, still in zip((0, 4, 8), stills, strict=True):
        assert np.array_equal(shown[index], still)
    assert np.array_equal(shown[2], ((stills[0].astype(int) + stills[1] + 1) // 2).astype(np.uint8))
    assert np.array_equal(next(iter(frames(made, studio_loader.get, paint, [6]))), shown[6])


def test_a_fade_begins_and_ends_with_its_pictures() -> None:
    one, other = np.random.RandomState(0).randint(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    assert np.array_equal(fade(one, other, 0), one)
    assert np.array_equal(fade(one, other, FADE_STEPS), other)
