from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import TrainConfig
from models.latents import projection
from models.latents.likeness import error, look, similarity
from models.latents.projection import Projection, Sketches, project, seeds_for, sketch
from models.latents.seeds import z_from_seeds
from models.networks.generator import Generator
from models.registry import build_generator
from models.sampling import render


@pytest.fixture(autouse=True)
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "SEEDS", 300)


@pytest.fixture
def styled(small_generator: Generator) -> Generator:
    """Every layer's w shows."""
    with torch.no_grad():
        for normalise in small_generator.synthesis.get_submodule("norms"):  # type: ignore[union-attr]
            normalise.affine.weight.mul_(20)
    return small_generator


def unseen(generator: Generator, *, layers_apart: bool) -> Tensor:
    """A picture that none of the seeds paints, [1, C, R, R]: of later seeds, one for all layers or one a layer."""
    z = torch.from_numpy(z_from_seeds(range(5_000, 5_000 + generator.num_ws), generator.z_dim))
    with torch.no_grad():
        w = generator.mapping(z)
        own = torch.stack([w[layer, layer] for layer in range(generator.num_ws)])[None] if layers_apart else w[:1]
        x: Tensor = generator.synthesis(own)
    return x


def found_for(generator: Generator, target: Tensor, steps: int = 120, seed: int = 0) -> tuple[Projection, Sketches]:
    sketches = sketch(generator)
    assert sketches is not None
    found = project(generator, target, sketches, steps=steps, seed=seed)
    assert found is not None
    return found, sketches


def alike(generator: Generator, w: Tensor, target: Tensor) -> tuple[float, float]:
    """SSIM and error of the pictures of w [N, num_ws, w_dim], the best of them by each."""
    with torch.no_grad():
        seen, goal = look(generator.synthesis(w)), look(target)
    return float(similarity(seen, goal).max()), float(error(seen, goal).min())


@pytest.mark.parametrize("layers_apart", [False, True])
def test_a_picture_of_its_own_is_found_far_better_than_the_best_seed_paints_it(
    styled: Generator, layers_apart: bool
) -> None:
    target = unseen(styled, layers_apart=layers_apart)
    found, sketches = found_for(styled, target)
    of_seeds = alike(styled, sketches.w[:, None].repeat(1, styled.num_ws, 1), target)
    of_found = alike(styled, found.w[None], target)
    assert 1 - of_found[0] < 0.3 * (1 - of_seeds[0])
    assert of_found[1] < 0.3 * of_seeds[1]


def test_where_w_is_z_the_one_w_is_found(small_config: Callable[..., TrainConfig]) -> None:
    generator = build_generator(small_config("classic").network)
    with torch.no_grad():
        for layer in generator.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = None  # one batch tells the norms all they will know of their features
        generator(torch.randn(512, generator.z_dim))
        generator.synthesis.get_parameter("paint.weight").mul_(10)
    target = unseen(generator.eval(), layers_apart=False)
    found, sketches = found_for(generator, target)
    assert found.w.shape == (1, generator.w_dim)
    assert alike(generator, found.w[None], target)[1] < 0.3 * alike(generator, sketches.w[:, None], target)[1]


def test_the_same_seed_finds_the_same_w_and_another_seed_another(styled: Generator) -> None:
    target = unseen(styled, layers_apart=True)
    first, again, other = (found_for(styled, target, steps=20, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.w, again.w)
    assert torch.equal(first.trajectory, again.trajectory)
    assert not torch.equal(first.w, other.w)


def test_the_trajectory_begins_near_a_seed_and_ends_at_what_was_found(styled: Generator) -> None:
    found, sketches = found_for(styled, unseen(styled, layers_apart=True), steps=40)
    assert found.trajectory.dtype == found.w.dtype == torch.float32
    assert found.trajectory.shape == (11, styled.num_ws, styled.w_dim)
    assert torch.equal(found.trajectory[-1], found.w)
    spread = (sketches.w - sketches.center).square().sum(dim=1).mean().sqrt()
    nearest = (sketches.w - found.trajectory[0, 0]).square().sum(dim=1).min().sqrt()
    assert float(nearest) < 0.2 * float(spread)


def test_every_step_tells_the_best_so_far_which_only_gets_better(styled: Generator) -> None:
    sketches = sketch(styled)
    assert sketches is not None
    told: list[tuple[int, int, Tensor, float]] = []
    found = project(
        styled,
        unseen(styled, layers_apart=True),
        sketches,
        steps=30,
        on_step=lambda step, steps, w, loss: told.append((step, steps, w.clone(), loss)),
    )
    assert found is not None
    assert [(step, steps) for step, steps, _, _ in told] == [(step, 30) for step in range(1, 31)]
    losses = [loss for *_, loss in told]
    assert losses == sorted(losses, reverse=True)
    assert torch.equal(told[-1][2], found.w)
    assert losses[-1] == found.loss


def test_a_search_that_is_told_to_stop_stops_at_its_next_step(styled: Generator) -> None:
    sketches = sketch(styled)
    assert sketches is not None
    asked, steps = count(), []
    stopped = project(
        styled,
        unseen(styled, layers_apart=False),
        sketches,
        steps=1_000_000,
        on_step=lambda step, *_: steps.append(step),
        should_stop=lambda: next(asked) == 3,
    )
    assert stopped is None
    assert steps == [1, 2, 3]
    assert sketch(styled, should_stop=lambda: True) is None


def test_the_nearest_seed_is_the_one_that_paints_the_target(
    prompted_generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompted_generator.captions = ("red cat", "blue dog", "green bird")
    picture = torch.from_numpy(render(prompted_generator, [123])).permute(0, 3, 1, 2) / 127.5 - 1
    found, sketches = found_for(prompted_generator, picture, steps=10)
    assert found.seed == 123
    assert torch.equal(found.seed_w[0], sketches.w[123])


def test_sketches_are_what_seeds_paint_seen_small(styled: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "BATCH_PIXELS", 100 * 32 * 32)
    told: list[tuple[int, int]] = []
    sketches = sketch(styled, on_batch=lambda done, total: told.append((done, total)))
    assert sketches is not None
    assert told == [(100, 300), (200, 300), (300, 300)]
    pictures = torch.from_numpy(render(styled, range(300))).permute(0, 3, 1, 2) / 127.5 - 1
    expected = torch.nn.functional.avg_pool2d(pictures, 2)
    assert float((sketches.pictures - expected).abs().mean()) < 0.02  # bfloat16, where the processor has it


def test_the_w_of_seeds_are_spread_evenly_in_the_coordinates_of_the_search(styled: Generator) -> None:
    sketches = sketch(styled)
    assert sketches is not None
    axes = sketches.axes.double().numpy()
    v = np.linalg.solve(axes, (sketches.w - sketches.center).double().numpy().T)
    covariance = np.cov(v)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)
    assert np.diag(covariance).max() < 1.001


def test_the_generator_stays_as_it_was(styled: Generator) -> None:
    before = {name: tensor.clone() for name, tensor in styled.state_dict().items()}
    styled.train()
    found_for(styled, torch.zeros(1, 3, 32, 32), steps=5)
    assert styled.training
    for name, tensor in styled.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in styled.parameters())


@pytest.mark.parametrize(("resolution", "expected"), [(32, 10_000), (64, 10_000), (128, 2_500), (512, 156)])
def test_fewer_seeds_are_looked_at_where_each_takes_longer(
    small_config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, resolution: int, expected: int
) -> None:
    monkeypatch.setattr(projection, "SEEDS", 10_000)
    generator = build_generator(small_config().network)
    generator.config = generator.config.model_copy(update={"resolution": resolution})
    assert seeds_for(generator) == expected
