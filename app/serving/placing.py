"""From points to w: what seeds map to, pulled to the typical, and the steps taken from there.

Mappings are calculated in blocks of a fixed number of rows, and whatever is done to a w is done to that one alone, so
that it has the same bits in whatever company it was asked for: no library ever sees another shape.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.serving.point import Cross, Point
from app.serving.texts import Meanings, block_rows
from models.latents.seeds import z_from_seeds
from models.latents.variation import vary
from models.networks.generator import Generator

Stored = Callable[[str], Tensor]  # a stored latent by its sha256, [num_ws, w_dim]; raises InvalidRequest


class Leaf(NamedTuple):
    """What is mapped: the latent of a seed, told what a point is told."""

    seed: int
    told: Point


class Placed(NamedTuple):
    """A w before truncation, and what it is pulled towards; both [num_ws, w_dim]."""

    w: Tensor
    center: Tensor


Mapped = dict[Leaf, Placed]


def place(
    generator: Generator, points: Sequence[Point], meaning: Meanings | None = None, stored: Stored | None = None
) -> Tensor:
    """w of points, [N, num_ws, w_dim] or more rows, which mean nothing; meaning: of texts, for a generator that knows
    them; stored: needed where a point names something stored."""
    if all(point.plain for point in points):
        return _plain(generator, points, meaning)
    simple = [_simple(point) for point in points]
    mapped = map_leaves(generator, [leaf for point in simple if not point.plain for leaf in _leaves(point)], meaning)
    plain = [point for point in simple if point.plain]
    easy = iter(_plain(generator, plain, meaning) if plain else ())
    return torch.stack([next(easy) if point.plain else _final(generator, point, mapped, stored) for point in simple])


def map_leaves(generator: Generator, leaves: Sequence[Leaf], meaning: Meanings | None) -> Mapped:
    """What each leaf maps to, and what it would be truncated towards."""
    different = list(dict.fromkeys(leaves))
    seeds = z_from_seeds([leaf.seed for leaf in different], generator.z_dim)
    rows = map_z(generator, seeds, [leaf.told for leaf in different], meaning)
    return dict(zip(different, rows, strict=True))


def map_z(
    generator: Generator, z: NDArray[np.float32], told: Sequence[Point], meaning: Meanings | None
) -> list[Placed]:
    """Latents z [N, z_dim] through the mapping, each told what a point is told."""
    size = block_rows(generator.w_avg.device)
    placed: list[Placed] = []
    for start in range(0, len(z), size):
        block = z[start : start + size]
        c, center = _told(generator, told[start : start + size], meaning)
        w = generator.mapping(_rows(generator, block), c)
        placed += [Placed(w[row], center[row].expand(generator.num_ws, -1)) for row in range(len(block))]
    return placed


def truncated(placed: Placed, psi: float, cutoff: int | None) -> Tensor:
    """A w pulled towards its center by psi, in its layers up to the cutoff, [num_ws, w_dim]. arXiv:1812.04948, B."""
    return torch.lerp(placed.center, placed.w, _weight(psi, cutoff, placed.w))


def _weight(psi: float, cutoff: int | None, w: Tensor) -> Tensor:
    weight = torch.ones(w.shape[-2], 1, device=w.device)
    weight[:cutoff] = psi
    return weight


def _simple(point: Point) -> Point:
    """The same point without what leads nowhere, so that it is the same bit for bit."""
    changes: dict[str, object] = {}
    if any(step.strength == 0 for step in point.variations):
        changes["variations"] = tuple(step for step in point.variations if step.strength)
    if any(step.amount == 0 for step in point.sliders):
        changes["sliders"] = tuple(step for step in point.sliders if step.amount)
    return point.model_copy(update=changes) if changes else point


def _leaves(point: Point) -> Iterator[Leaf]:
    """All that has to be mapped for a point."""
    if point.cross is not None:
        yield from _leaves(_simple(point.cross.first))
        yield from _leaves(_simple(point.cross.second))
    elif point.latent is None:
        yield Leaf(point.latent_seed, _told_by(point))
    if point.mix is not None:
        yield Leaf(point.mix.seed, _told_by(point))
    for step in point.variations:
        yield _aside(point, step.seed)


def _told_by(point: Point) -> Point:
    """The point that says no more than what its networks are told: many points, one leaf."""
    return Point(seed=point.seed, prompt=point.prompt, label=point.label, prompt_mode=point.prompt_mode)


def _aside(point: Point, seed: int) -> Leaf:
    """Another w of the same kind: told the same, or, where that is nothing or the point is not drawn from a seed, what
    a picture of that seed is told."""
    drawn = point.latent is None and point.cross is None
    return Leaf(seed, _told_by(point.model_copy(update={"seed": seed})) if drawn else Point(seed=seed))


def _final(generator: Generator, point: Point, mapped: Mapped, stored: Stored | None) -> Tensor:
    """w of one point, [num_ws, w_dim]."""
    placed = _start(generator, point, mapped, stored)
    if point.mix is not None:
        w = placed.w.clone()
        layers = list(point.mix.layers)
        w[layers] = mapped[Leaf(point.mix.seed, _told_by(point))].w[layers]
        placed = placed._replace(w=w)
    w = truncated(placed, point.truncation_psi, point.truncation_cutoff)
    for step in point.variations:
        aside = mapped[_aside(point, step.seed)]
        # About what both are told, or else what all pictures are about: texts differ by more than pictures of one do.
        center = placed.center if torch.equal(aside.center, placed.center) else generator.w_avg.expand_as(w)
        w = vary(w, center, truncated(aside, point.truncation_psi, point.truncation_cutoff), step.strength)
    for slider in point.sliders:
        w = w + slider.amount * _read(stored, slider.offset)
    return w


def _start(generator: Generator, point: Point, mapped: Mapped, stored: Stored | None) -> Placed:
    if point.cross is not None:
        return _crossed(generator, point.cross, mapped, stored)
    if point.latent is not None:
        return Placed(_read(stored, point.latent), generator.w_avg.expand(generator.num_ws, -1))
    return mapped[Leaf(point.latent_seed, _told_by(point))]


def _crossed(generator: Generator, cross: Cross, mapped: Mapped, stored: Stored | None) -> Placed:
    first, second = (_simple(point) for point in (cross.first, cross.second))
    amount = torch.zeros(generator.num_ws, 1, device=generator.w_avg.device)
    amount[slice(None) if cross.layers is None else list(cross.layers)] = cross.amount
    w, towards = (_final(generator, point, mapped, stored) for point in (first, second))
    center, other_center = (_center(generator, point, mapped) for point in (first, second))
    return Placed(torch.lerp(w, towards, amount), torch.lerp(center, other_center, amount))


def _center(generator: Generator, point: Point, mapped: Mapped) -> Tensor:
    """What truncation pulls a point towards, [num_ws, w_dim]."""
    if point.cross is None and point.latent is None:
        return mapped[Leaf(point.latent_seed, _told_by(point))].center
    return generator.w_avg.expand(generator.num_ws, -1)


def _read(stored: Stored | None, name: str) -> Tensor:
    if stored is None:
        raise ValueError("This point names something stored, and nothing reads it.")
    return stored(name)


def _plain(generator: Generator, points: Sequence[Point], meaning: Meanings | None) -> Tensor:
    """w of points that say everything by their seeds, in whole blocks; the rows behind them mean nothing."""
    size = block_rows(generator.w_avg.device)
    blocks = [_plain_block(generator, points[start : start + size], meaning) for start in range(0, len(points), size)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _plain_block(generator: Generator, points: Sequence[Point], meaning: Meanings | None) -> Tensor:
    """w of at most a block of points, mixed and truncated, [block, num_ws, w_dim]."""
    c, center = _told(generator, points, meaning)
    w = generator.mapping(_rows(generator, _z(generator, [point.latent_seed for point in points])), c)
    mixed = [(row, point.mix) for row, point in enumerate(points) if point.mix is not None]
    if mixed:
        seeds = [point.latent_seed if point.mix is None else point.mix.seed for point in points]
        others = generator.mapping(_rows(generator, _z(generator, seeds)), c)  # told the same
        for row, mix in mixed:
            w[row, list(mix.layers)] = others[row, list(mix.layers)]
    weight = np.ones((len(w), generator.num_ws, 1), dtype=np.float32)
    for row, point in enumerate(points):
        weight[row, : point.truncation_cutoff] = point.truncation_psi
    return torch.lerp(center[:, None], w, torch.from_numpy(weight).to(w.device))


def _told(generator: Generator, points: Sequence[Point], meaning: Meanings | None) -> tuple[Tensor | None, Tensor]:
    """What a block of points tells the generator, c [block, dim], and what truncation pulls each towards, [block,
    w_dim]; the rows behind them mean nothing."""
    rows = block_rows(generator.w_avg.device)
    if meaning is None:
        return None, generator.w_avg.expand(rows, -1)
    meant = meaning.of(points)
    meant += [meant[-1]] * (rows - len(meant))
    return torch.cat([text.c for text in meant]), torch.stack([text.center for text in meant])


def _z(generator: Generator, seeds: Sequence[int]) -> NDArray[np.float32]:
    return z_from_seeds(seeds, generator.z_dim)


def _rows(generator: Generator, latents: NDArray[np.float32]) -> Tensor:
    """At most a block of latents, and ones behind them, [block, z_dim]."""
    z = np.ones((block_rows(generator.w_avg.device), generator.z_dim), dtype=np.float32)
    z[: len(latents)] = latents
    return torch.from_numpy(z).to(generator.w_avg.device)
