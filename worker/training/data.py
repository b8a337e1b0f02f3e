"""Endless shuffled batches of real images, resumable from a single number."""

import numpy as np
import torch
from torch import Tensor


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


class RealImages:
    """Batches of a uint8 array [N, H, W, C] as float [B, C, H, W] in [-1, 1] on a device."""

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
    ) -> None:
        self._images = images
        self._batch_size = batch_size
        self._mirror = mirror
        self._rows = ShuffledRows(len(images), seed=seed, drawn=drawn)
        self._device = device
        self._memory_format = memory_format

    @property
    def drawn(self) -> int:
        """Images handed out so far; give it back to carry on from here."""
        return self._rows.drawn

    def next(self) -> Tensor:
        """The next batch, half of it mirrored left to right when asked for."""
        rows, coins = self._rows.take(self._batch_size)
        pixels = self._images[rows]  # a copy in memory, uint8 [B, H, W, C]
        if self._mirror:
            pixels[coins] = pixels[coins, :, ::-1]
        # The device gets bytes, a quarter of what floats would cost on the way.
        batch = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)  # [B, C, H, W]
        return batch.to(torch.float32, memory_format=self._memory_format).div_(127.5).sub_(1)
