"""Points become the w they say, alone and in company."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.core import latents
from app.core.errors import InvalidRequest
from app.core.storage import Storage
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator
from app.serving.point import Cross, Mix, Point, Slider, Variation

MakeCheckpoint = Callable[..., str]


@pytest.fixture
def loaded(storage: Storage, make_checkpoint: MakeCheckpoint) -> LoadedGenerator:
    return Loader(storage.path, device="cpu", budget_bytes=2**30, max_batch=8).get(make_checkpoint())


@pytest.fixture
def keep(storage: Storage, loaded: LoadedGenerator) -> Callable[[Tensor], str]:
    """Store a w or a step of it."""
    return lambda w: latents.store(storage, w.numpy())


def offset(loaded: LoadedGenerator, seed: int = 0) -> Tensor:
    shape = loaded.generator.num_ws, loaded.generator.w_dim
    return torch.from_numpy(np.random.RandomState(seed).randn(*shape).astype(np.float32))


def w_of(loaded: LoadedGenerator, **fields: Any) -> Tensor:
    return loaded.place([Point(**{"seed": 5, "truncation_psi": 1.0} | fields)])[0]


def test_a_stored_w_is_that_w_and_truncation_pulls_it_to_the_mean(loaded: LoadedGenerator, keep: Any) -> None:
    w = offset(loaded)
    name = keep(w)
    assert torch.equal(w_of(loaded, latent=name), w)
    mean = loaded.generator.w_avg.expand_as(w)
    assert torch.equal(w_of(loaded, latent=name, truncation_psi=0.0), mean)
    assert torch.allclose(w_of(loaded, latent=name, truncation_psi=0.25), mean + 0.25 * (w - mean), atol=1e-6)


def test_strength_0_is_the_picture_and_1_another_of_equal_spread(loaded: LoadedGenerator) -> None:
    plain, mean = w_of(loaded), loaded.generator.w_avg
    assert torch.equal(w_of(loaded, variations=(Variation(seed=8, strength=0.0),)), plain)
    other = w_of(loaded, seed=8)
    assert torch.allclose(w_of(loaded, variations=(Variation(seed=8, strength=1.0),)), other, atol=1e-5)
    near = [w_of(loaded, variations=(Variation(seed=8, strength=each),)) for each in (0.1, 0.3, 0.6)]
    distances = [(each - plain).norm().item() for each in near]
    assert distances == sorted(distances)
    middle = w_of(loaded, variations=(Variation(seed=8, strength=0.5),))
    assert torch.allclose(middle, mean + 0.5**0.5 * ((plain - mean) + (other - mean)), atol=1e-5)


def test_a_crossing_lies_between_its_parents_in_the_layers_it_names(loaded: LoadedGenerator) -> None:
    first, second = Point(seed=1, truncation_psi=0.5), Point(seed=2, truncation_psi=1.0)
    ends = loaded.place([first, second])
    child = w_of(loaded, cross=Cross(first=first, second=second, amount=0.25, layers=(1,)))
    assert torch.allclose(child[1], ends[0, 1] + 0.25 * (ends[1, 1] - ends[0, 1]), atol=1e-6)
    assert torch.equal(child[0], ends[0, 0])
    whole = w_of(loaded, cross=Cross(first=first, second=second, amount=1.0))
    assert torch.allclose(whole, ends[1], atol=1e-6)


def test_sliders_add_up_and_0_is_nowhere(loaded: LoadedGenerator, keep: Any) -> None:
    rust, age = offset(loaded, 1), offset(loaded, 2)
    names = keep(rust), keep(age)
    still = (Slider(name="rust", amount=0, offset=names[0]),)
    assert torch.equal(w_of(loaded, sliders=still), w_of(loaded))
    both = (
        Slider(name="rust", amount=1.5, offset=names[0]),
        Slider(name="age", amount=-2, offset=names[1]),
    )
    assert torch.allclose(w_of(loaded, sliders=both), w_of(loaded) + 1.5 * rust - 2 * age, atol=1e-5)


def test_layers_are_mixed_into_a_stored_w(loaded: LoadedGenerator, keep: Any) -> None:
    w, other = offset(loaded), w_of(loaded, seed=7)
    mixed = w_of(loaded, latent=keep(w), mix=Mix(seed=7, layers=(1,)))
    assert torch.allclose(mixed[1], other[1], atol=1e-6)
    assert torch.equal(mixed[0], w[0])


def kinds(keep: Any, loaded: LoadedGenerator) -> list[Point]:
    name = keep(offset(loaded))
    cross = Cross(first=Point(seed=1), second=Point(seed=2, variations=(Variation(seed=3, strength=0.4),)), amount=0.6)
    return [
        Point(seed=1),
        Point(seed=1, variations=(Variation(seed=2, strength=0.3),)),
        Point(seed=4, latent=name, sliders=(Slider(name="rust", amount=2, offset=name),)),
        Point(seed=4, cross=cross, truncation_psi=0.8, truncation_cutoff=1),
        Point(seed=6, mix=Mix(seed=1, layers=(0,))),
        Point(seed=9, sliders=(Slider(name="rust", amount=-1, offset=name),), mix=Mix(seed=1, layers=(0,))),
    ]


def test_every_kind_of_point_has_the_same_pixels_in_any_company(loaded: LoadedGenerator, keep: Any) -> None:
    points = kinds(keep, loaded)
    alone = [loaded.render([point])[0] for point in points]
    chance = np.random.RandomState(0)
    for _ in range(6):
        order = chance.permutation([*range(len(points))] * 2)
        together = loaded.render([points[index] for index in order])
        for place, index in enumerate(order):
            assert np.array_equal(together[place], alone[index])
    assert np.array_equal(loaded.render_w(loaded.place(points)), np.stack(alone))


def test_texts_reach_variations_and_crossings(
    storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: Any
) -> None:
    loaded = Loader(storage.path, device="cpu", budget_bytes=2**30, max_batch=8).get(
        make_checkpoint(0, prompted_config)
    )
    red, blue = Point(seed=1, prompt="red", truncation_psi=1.0), Point(seed=1, prompt="blue", truncation_psi=1.0)
    ends = loaded.place([red, blue])
    assert not torch.allclose(ends[0], ends[1])
    middle = loaded.place([Point(seed=0, truncation_psi=1.0, cross=Cross(first=red, second=blue, amount=0.5))])[0]
    assert torch.allclose(middle, (ends[0] + ends[1]) / 2, atol=1e-6)
    step = (Variation(seed=2, strength=1.0),)
    told_the_same = loaded.place([red.model_copy(update={"variations": step}), red.model_copy(update={"seed": 2})])
    assert torch.allclose(told_the_same[0], told_the_same[1], atol=1e-5)
    loaded.generator.captions = ("red", "blue")
    for told_nothing in ({}, {"prompt": "zzz"}):  # then each seed draws a caption of its own
        one, other = (Point(seed=seed, truncation_psi=0.5, **told_nothing) for seed in (1, 2))
        varied = loaded.place([one.model_copy(update={"variations": step}), other])
        assert torch.allclose(varied[0], varied[1], atol=1e-5)


def test_a_latent_of_another_shape_is_refused_before_it_is_painted(loaded: LoadedGenerator, storage: Storage) -> None:
    name = latents.store(storage, np.zeros((1, 3), np.float32))
    with pytest.raises(InvalidRequest, match="another model"):
        loaded.check(Point(seed=1, latent=name))


def test_layers_that_are_not_there_are_refused_inside_a_crossing_too(loaded: LoadedGenerator) -> None:
    inner = Cross(first=Point(seed=1, mix=Mix(seed=2, layers=(40,))), second=Point(seed=2), amount=0.5)
    with pytest.raises(InvalidRequest, match="mix asks for layer 40"):
        loaded.check(Point(seed=1, cross=inner))
    outer = Cross(first=Point(seed=1), second=Point(seed=2), amount=0.5, layers=(40,))
    with pytest.raises(InvalidRequest, match="cross asks for layer 40"):
        loaded.check(Point(seed=1, cross=outer))
