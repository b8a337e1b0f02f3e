"""From points to pixels: a generator that is ready to paint, and its forward pass.

A w has the same bits in whatever company it was placed (see placing.py), and the synthesis runs in batches of several
sizes, all of which were seen to agree (see reproduce.py).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.core import latents
from app.core.errors import InvalidRequest
from app.serving.capacity import Capacity, held_bytes
from app.serving.judge import Judge
from app.serving.placing import Placed, Stored, map_z, place
from app.serving.point import Point
from app.serving.runtime import Runtime
from app.serving.texts import Meanings
from models.checkpoint import CheckpointMeta
from models.networks.generator import Generator

STORED_LATENTS = 256  # of a generator, kept in memory; some kilobytes each


def _nothing(name: str) -> bytes:
    raise InvalidRequest(f"Latent {name[:12]} cannot be read here.", code="latent_not_found", param="recipe")


class LoadedGenerator:
    """G of one checkpoint, ready to paint recipes; of the batch sizes it uses, all give the same pixels."""

    def __init__(
        self,
        sha256: str,
        generator: Generator,
        meta: CheckpointMeta,
        runtime: Runtime,
        capacity: Capacity,
        meaning: Meanings | None,
        read: Callable[[str], bytes] = _nothing,
    ) -> None:
        self.sha256 = sha256
        self.generator = generator
        self.meta = meta
        self.runtime = runtime
        self._capacity = capacity
        self.meaning = meaning  # of texts; None where it knows none
        self.judge: Judge | None = None  # read when it is first asked for
        self._held_bytes = held_bytes(generator)
        self._read = read  # a stored latent's bytes, by its sha256
        self._stored: dict[str, Tensor] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pictures that a pass may paint, rising."""
        return self._capacity.sizes

    @property
    def bytes(self) -> int:
        """What it takes of the device's memory: weights as they were prepared, one pass of its largest batch, the texts
        it remembers, and its judge."""
        texts = 0 if self.meaning is None else self.meaning.bytes
        return self._held_bytes + self._capacity.pass_bytes + texts + (0 if self.judge is None else self.judge.bytes)

    def batch_size(self, waiting: int) -> int:
        """How many of the waiting pictures the next pass should paint."""
        fitting = [size for size in self.sizes if size <= waiting]
        return fitting[-1] if fitting else waiting

    def check(self, point: Point) -> None:
        """Refuse, with InvalidRequest, a point that asks for what this generator has not got."""
        parts = [point] if point.cross is None else list(point.points())
        for part in parts:
            self._check_layers("mix", () if part.mix is None else part.mix.layers)
            self._check_layers("cross", () if part.cross is None else part.cross.layers or ())
            if self.meaning is None and part.text:
                raise InvalidRequest("These weights know no texts; leave prompt and label out.", param="prompt")
        for name in point.stored():
            self.stored(name)

    def _check_layers(self, field: str, layers: Sequence[int]) -> None:
        num_ws = self.generator.num_ws
        if layers and max(layers) >= num_ws:
            has = f"layers 0 to {num_ws - 1}" if num_ws > 1 else "layer 0 alone"
            raise InvalidRequest(f"{field} asks for layer {max(layers)}; this model has {has}.", param=field)

    def render(self, shown: Sequence[Point | Tensor]) -> NDArray[np.uint8]:
        """The pictures of points, or of places themselves, w [num_ws, w_dim]; uint8 [N, R, R, C], each as it would be
        alone."""
        points = [each for each in shown if isinstance(each, Point)]
        if len(points) < len(shown):
            placed = iter(self.place(points) if points else ())
            return self.render_w(torch.stack([each if isinstance(each, Tensor) else next(placed) for each in shown]))
        return self._in_passes(
            len(points),
            lambda part: paint(self.generator, points[part], self.meaning, self.stored, at_least=self.sizes[0]),
        )

    def render_w(self, w: Tensor) -> NDArray[np.uint8]:
        """The pictures of w [N, num_ws, w_dim], uint8 [N, R, R, C]: those of the points that are placed there."""
        with torch.inference_mode():
            return self._in_passes(len(w), lambda part: _synthesis(self.generator, w[part], self.sizes[0]))

    def _in_passes(self, count: int, pass_: Callable[[slice], Tensor]) -> NDArray[np.uint8]:
        pictures = []
        start = 0
        while start < count:
            size = self.batch_size(count - start)
            pictures.append(_pixels(pass_(slice(start, start + size)))[:size])
            start += size
        return pictures[0] if len(pictures) == 1 else np.concatenate(pictures)

    @torch.inference_mode()
    def place(self, points: Sequence[Point]) -> Tensor:
        """w of points, [N, num_ws, w_dim]."""
        return place(self.generator, points, self.meaning, self.stored)[: len(points)]

    @torch.inference_mode()
    def map(self, z: NDArray[np.float32], told: Sequence[Point]) -> list[Placed]:
        """Latents z [N, z_dim] to w before truncation, each told what a point is told; see placing.truncated."""
        return map_z(self.generator, z, told, self.meaning)

    def stored(self, name: str) -> Tensor:
        """A stored latent, [num_ws, w_dim], by its sha256. Raises InvalidRequest for one of another model's shape."""
        if name not in self._stored:
            data = self._read(name)
            numbers = latents.read(data, self.generator.num_ws, self.generator.w_dim)
            if numbers is None or not np.isfinite(numbers).all():
                shape = f"{self.generator.num_ws} x {self.generator.w_dim}"
                message = f"Latent {name[:12]} belongs to another model: this one's are {shape} numbers."
                raise InvalidRequest(message, code="latent_does_not_fit", param="recipe")
            if len(self._stored) >= STORED_LATENTS:
                self._stored.clear()
            self._stored[name] = torch.from_numpy(numbers).to(self.generator.w_avg.device)
        return self._stored[name]


@torch.inference_mode()
def paint(
    generator: Generator,
    points: Sequence[Point],
    meaning: Meanings | None = None,
    stored: Stored | None = None,
    *,
    at_least: int = 1,
) -> Tensor:
    """One forward pass: x [N, C, R, R] in [-1, 1]. meaning: of texts, for a generator that knows them.

    at_least: pictures in the pass; where fewer are asked for, the last one is painted again to make up the number.
    """
    return _synthesis(generator, place(generator, points, meaning, stored)[: len(points)], at_least)


def _synthesis(generator: Generator, w: Tensor, at_least: int) -> Tensor:
    """x of w [N, num_ws, w_dim], and of the last one again where at_least is more than N."""
    if len(w) < at_least:
        w = torch.cat([w, w[-1, None].expand(at_least - len(w), -1, -1)])
    x: Tensor = generator.synthesis(w)
    return x


@torch.inference_mode()
def _pixels(x: Tensor) -> NDArray[np.uint8]:
    """x [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], as models.sampling.to_uint8, and x is used up."""
    pixels = x.mul_(127.5).add_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
