"""Projection: the w that paints a given picture as well as the generator can.

One w for all layers first, from the best of many seeds, then one a layer (w+, Abdal et al., arXiv:1904.03189), which
reaches pictures that no seed paints. The search runs in coordinates in which the w of seeds are spread evenly in every
direction: a step is as long in each, and the distance from their middle says how unlike a seed's a w is. Schedules and
decaying noise are those of Karras et al., arXiv:1912.04958, D; likeness is measured on pixels, not by a downloaded
network.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import cos, pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from models.latents.likeness import Sight, edge_error, error, look, similarity
from models.latents.seeds import z_from_seeds
from models.latents.truncation import no_text
from models.networks.generator import Generator
from models.objectives.precision import multiplies_bfloat16
from models.sampling import text_vectors

SEEDS, SEEDS_SIDE = 10_000, 64  # looked at for pictures of up to 64 px; a quarter for each doubling of the side
SKETCH_SIDE = 16  # pixels
BATCH_PIXELS = 1 << 18  # of one pass without gradients
EVEN = 0.01  # of the mean variance of w, added to each direction's: none is closed to the search
SHORTLIST = 64  # seeds that look nearest small, seen again at full size
STARTS = 8  # of those, continued together into w
KEPT = 2  # of those, continued into w+
W_SHARE = 0.1  # of the steps
STEPS = 300

LEARNING_RATE = 0.3  # a step of Adam, in deviations of w
RAMP_UP_STEPS, RAMP_DOWN = 10, 0.5  # steps; part of all steps
NOISE, NOISE_SHARE = 0.05, 0.75  # deviations of w at the start; part of the steps in which it fades
EDGES_WEIGHT, SIMILARITY_WEIGHT, PLAUSIBLE_WEIGHT = 0.3, 0.5, 0.004
TRAJECTORY_STEPS = 4  # between two points of it


class Sketches(NamedTuple):
    """What seeds paint, seen small; and how the w of seeds are spread."""

    pictures: Tensor  # [N, C, 16, 16] of the seeds 0 to N - 1
    w: Tensor  # [N, w_dim]
    center: Tensor  # [w_dim]
    axes: Tensor  # [w_dim, w_dim]: w = center + axes @ v, where v has mean 0 and variance 1 in every direction


class Projection(NamedTuple):
    """What was found for a picture."""

    w: Tensor  # [num_ws, w_dim], float32
    loss: float
    trajectory: Tensor  # [T, num_ws, w_dim], float32: the way there from a seed's w, for a film
    seed: int  # whose picture, of those looked at, is nearest: by the loss, without anything told but the seed
    seed_w: Tensor  # [num_ws, w_dim], float32


OnStep = Callable[[int, int, Tensor, float], None]  # step, of how many, best w so far [num_ws, w_dim], its loss


def seeds_for(generator: Generator) -> int:
    """How many seeds are worth looking at: as many pixels for any side from 64 px on."""
    return min(SEEDS, SEEDS * SEEDS_SIDE**2 // generator.config.resolution**2)


@torch.no_grad()
def sketch(
    generator: Generator,
    *,
    on_batch: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Sketches | None:
    """Paint the first seeds, each with the text it picks where G knows texts; None where should_stop() said so.

    on_batch: told how many are done, of how many. Raises EncoderUnavailable where the texts cannot be read here.
    """
    seeds = range(seeds_for(generator))
    size = max(1, BATCH_PIXELS // generator.config.resolution**2)
    device = generator.w_avg.device
    pictures, found = [], []
    with _evaluating(generator):
        texts = text_vectors(generator, generator.captions) if generator.captions else no_text(generator)
        for start in range(0, len(seeds), size):
            if should_stop is not None and should_stop():
                return None
            batch = seeds[start : start + size]
            c = None if texts is None else texts[[seed % len(texts) for seed in batch]]
            w = generator.mapping(torch.from_numpy(z_from_seeds(batch, generator.z_dim)).to(device), c)
            with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
                x = generator.synthesis(w)
            pictures.append(functional.adaptive_avg_pool2d(x.float(), SKETCH_SIDE))
            found.append(w[:, 0])
            if on_batch is not None:
                on_batch(batch[-1] + 1, len(seeds))
    return Sketches(torch.cat(pictures), *_spread(torch.cat(found)))


def _spread(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """w [N, w_dim], its center [w_dim], and the axes [w_dim, w_dim] along which it varies, each as long as that."""
    center = w.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(w.T))
    variances = variances.clamp_min(0) + EVEN * variances.mean()
    return w, center, directions * variances.sqrt()


def project(
    generator: Generator,
    target: Tensor,
    sketches: Sketches,
    *,
    seed: int = 0,
    steps: int = STEPS,
    on_step: OnStep | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Projection | None:
    """The w whose picture is nearest to target [1, C, R, R] in [-1, 1]; None where should_stop() said so.

    sketches: of this generator. seed: of all chance; the same seed on the same machine finds the same w.
    """
    goal = look(target.to(generator.w_avg.device))
    with _evaluating(generator):
        nearest = _nearest(generator, goal, sketches)
        starts = _coordinates(sketches, sketches.w[nearest[:STARTS], None])  # [STARTS, 1, w_dim]
        descent = _Descent(generator, goal, sketches, starts, seed)
        for step in range(steps):
            if should_stop is not None and should_stop():
                return None
            if step == round(W_SHARE * steps):
                descent.keep(KEPT)
            descent.step(step / steps)
            if on_step is not None:
                on_step(step + 1, steps, *descent.best())
    w, reached = descent.best()
    first = int(nearest[0])
    return Projection(w, reached, descent.way(), first, sketches.w[first].expand_as(w).clone())


class _Descent:
    """Adam from several starts at once, in coordinates; of each start the best w it has met, and the way it went."""

    def __init__(self, generator: Generator, goal: Sight, sketches: Sketches, starts: Tensor, seed: int) -> None:
        """starts: [k, 1, w_dim], one w for all layers each."""
        self._generator, self._goal, self._sketches = generator, goal, sketches
        self._chance = torch.Generator().manual_seed(seed)
        self._way: list[Tensor] = []  # [k, num_ws, w_dim] each
        self._losses = starts.new_full((len(starts),), float("inf"))
        self._met = starts.new_zeros(len(starts), generator.num_ws, generator.w_dim)
        self._begin(starts)

    def best(self) -> tuple[Tensor, float]:
        """The best w of all starts, [num_ws, w_dim], and its loss."""
        first = int(self._losses.argmin())
        return self._met[first], float(self._losses[first])

    def way(self) -> Tensor:
        """The way of the best start, [T, num_ws, w_dim]; it ends at the best w."""
        first = int(self._losses.argmin())
        return torch.stack([*(point[first] for point in self._way), self._met[first]])

    def keep(self, count: int) -> None:
        """Go on from the best w of as many starts, the best first, each layer with a w of its own from now on."""
        kept = self._losses.argsort(stable=True)[:count]
        self._way = [point[kept] for point in self._way]
        self._losses, self._met = self._losses[kept], self._met[kept]
        self._begin(_coordinates(self._sketches, self._met))

    def step(self, time: float) -> None:
        """One of Adam's; time: from 0 to 1 over the whole search."""
        rise = min(1.0, (self._taken + 1) / RAMP_UP_STEPS)
        fall = 0.5 - 0.5 * cos(pi * min(1.0, (1 - time) / RAMP_DOWN))
        noise = NOISE * max(0.0, 1 - time / NOISE_SHARE) ** 2
        disturbed = self._v + noise * torch.randn(self._v.shape, generator=self._chance).to(self._v)
        w = _from_coordinates(self._sketches, disturbed).expand(-1, self._generator.num_ws, -1)
        losses = loss(self._generator.synthesis(w), self._goal) + PLAUSIBLE_WEIGHT * disturbed.square().mean(dim=(1, 2))
        (self._v.grad,) = torch.autograd.grad(losses.sum(), self._v)
        if self._taken % TRAJECTORY_STEPS == 0:
            self._way.append(w.detach())
        self._note(w.detach(), losses.detach())
        self._adam.param_groups[0]["lr"] = LEARNING_RATE * rise * fall
        self._adam.step()
        self._taken += 1

    def _begin(self, v: Tensor) -> None:
        self._v = v.clone().requires_grad_()
        self._adam = torch.optim.Adam([self._v])
        self._taken = 0

    def _note(self, w: Tensor, losses: Tensor) -> None:
        """Keep what is better than before."""
        better = losses < self._losses
        self._losses = torch.where(better, losses, self._losses)
        self._met = torch.where(better[:, None, None], w, self._met)


def loss(x: Tensor, goal: Sight) -> Tensor:
    """How unlike pictures x [N, C, R, R] are to the goal, [N]: 0 for the same picture."""
    seen = look(x)
    return error(seen, goal) + EDGES_WEIGHT * edge_error(seen, goal) + SIMILARITY_WEIGHT * (1 - similarity(seen, goal))


@torch.no_grad()
def _nearest(generator: Generator, goal: Sight, sketches: Sketches) -> Tensor:
    """Seeds whose pictures are nearest to the goal, [SHORTLIST], the nearest first: found by their sketches, and put in
    order by the loss at full size."""
    small = functional.adaptive_avg_pool2d(goal.sizes[0], SKETCH_SIDE)
    distances = (sketches.pictures - small).abs().mean(dim=(1, 2, 3))
    likely = distances.argsort(stable=True)[:SHORTLIST]
    size = max(1, BATCH_PIXELS // generator.config.resolution**2)
    losses = []
    for w in torch.split(sketches.w[likely], size):
        losses.append(loss(generator.synthesis(w[:, None].repeat(1, generator.num_ws, 1)), goal))
    order = torch.cat(losses).argsort(stable=True)
    return likely[order]


def _coordinates(sketches: Sketches, w: Tensor) -> Tensor:
    """w [..., w_dim] as deviations along the axes, [..., w_dim]."""
    v: Tensor = torch.linalg.solve(sketches.axes, (w - sketches.center)[..., None])
    return v[..., 0]


def _from_coordinates(sketches: Sketches, v: Tensor) -> Tensor:
    """The inverse of _coordinates."""
    return sketches.center + v @ sketches.axes.T


@contextmanager
def _evaluating(generator: Generator) -> Iterator[None]:
    training = generator.training
    generator.eval()
    try:
        yield
    finally:
        generator.train(training)
