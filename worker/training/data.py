"""Endless shuffled batches of real images, resumable from a single number."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.config import TrainConfig
from models.metrics.memorisation import split_holdout


class ShuffledRows:
    """Row numbers and coin flips without end: every row once a pass, each pass in its own order.

    The order of pass p is drawn from (seed, p) alone, so `drawn`, the rows handed out so far, is all there is to save.
    """

    def __init__(self, count: int, *, seed: int, drawn: int = 0) -> None:
        self.count = count
        self.seed = seed
        self.drawn = drawn
        self._shuffle(drawn // count)

    def take(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `size` row numbers, int64 [size], and a fair coin for each, bool [size]."""
        rows: list[np.ndarray] = []
        coins: list[np.ndarray] = []
        missing = size
        while missing:
            pass_number, start = divmod(self.drawn, self.count)
            if pass_number != self._pass_number:
                self._shuffle(pass_number)
            stop = min(start + missing, self.count)
            rows.append(self._order[start:stop])
            coins.append(self._coins[start:stop])
            self.drawn += stop - start
            missing -= stop - start
        return np.concatenate(rows), np.concatenate(coins)

    def _shuffle(self, pass_number: int) -> None:
        random = np.random.default_rng([self.seed, pass_number])
        self._pass_number = pass_number
        self._order = random.permutation(self.count)
        self._coins = random.random(self.count) < 0.5


def shown_rows(config: TrainConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a dataset are shown, and which are held out: the same of every training, whatever its seed."""
    if not config.holdout:
        return np.arange(count), np.arange(0)
    return split_holdout(count)


class RealBatch(NamedTuple):
    """Real images [B, C, H, W] in [-1, 1] on the device, and the rows of the dataset they are, int64 [B]."""

    images: Tensor
    rows: np.ndarray

    def parts(self, size: int) -> "Iterator[RealBatch]":
        """The batch in pieces of `size` or, the last one, fewer."""
        for start in range(0, len(self.rows), size):
            yield RealBatch(self.images[start : start + size], self.rows[start : start + size])


class RealImages:
    """Batches of a uint8 array [N, H, W, C] on a device; the next one is read while this one is learnt from.

    rows: those that may be shown, ascending; None: all. share: which of how many equal parts of every batch is wanted,
    where several processes train together.
    """

    def __init__(
        self,
        images: np.ndarray,
        *,
        batch_size: int,
        mirror: bool,
        seed: int,
        drawn: int,
        device: torch.device,
        memory_format: torch.memory_format,
        rows: np.ndarray | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._images = images
        self._batch_size = batch_size
        self._mirror = mirror
        self._shown = np.arange(len(images)) if rows is None else rows
        self._order = ShuffledRows(len(self._shown), seed=seed, drawn=drawn)
        self._share = share
        self._device = device
        self._memory_format = memory_format
        self.drawn = drawn  # images handed out so far; give it back to carry on from here
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reals")
        self._coming = self._reader.submit(self._read)

    def next(self) -> RealBatch:
        """The next batch, half of it mirrored left to right when asked for."""
        pixels, rows = self._coming.result()
        self._coming = self._reader.submit(self._read)
        self.drawn += self._batch_size
        # The device gets bytes, a quarter of what floats would cost on the way.
        batch = pixels.to(self._device, non_blocking=True).permute(0, 3, 1, 2)  # [B, C, H, W]
        images = batch.to(torch.float32, memory_format=self._memory_format).div_(127.5).sub_(1)
        return RealBatch(images, rows)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)

    def _read(self) -> tuple[Tensor, np.ndarray]:
        order, coins = self._order.take(self._batch_size)
        part, parts = self._share
        order, coins = order[part::parts], coins[part::parts]
        rows = self._shown[order]
        pixels = self._images[rows]  # a copy in memory, uint8 [B, H, W, C]
        if self._mirror:
            pixels[coins] = pixels[coins, :, ::-1]
        held = torch.from_numpy(pixels)
        return (held.pin_memory() if self._device.type == "cuda" else held), rows
