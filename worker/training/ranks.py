"""Several processes that train one GAN together, each on its share of every batch.

Not by torch's DistributedDataParallel: it averages what one backward pass through its wrapper leaves, and here D is
called several times a step, R1 and R2 differentiate it twice, and parts of a batch add up (docs/adr/0008). So every
process adds up its own gradients as if it were alone, and before the optimiser's step `average` replaces them by their
mean. Every network thus takes the same step on every process, to the bit.

Two kinds of messages: gradients go over the device (nccl on GPUs); what processes agree on goes over the CPU (gloo), so
that no GPU is waited for.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, distributed
from torch.optim import Optimizer


class MemoryRanOutElsewhere(torch.OutOfMemoryError):
    """Another process ran out of memory: all take smaller passes."""


class Moment(NamedTuple):
    """What the processes agreed on between two steps."""

    stop: bool  # one of them wants to
    minutes: float  # the rest is the first one's: clocks differ
    tick: bool
    snapshot: bool


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is; one alone by default. The first tells the world, the others only compute."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    def share_of(self, batch: int) -> int:
        """How many pictures of a batch are this process's."""
        return len(range(self.rank, batch, self.count))

    def average(self, optimizer: Optimizer, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Replace every gradient by its mean over the processes; the mean losses. All in one message."""
        if self.count == 1:
            return dict(losses)
        self.meet()  # one that ran out of memory has no gradients to give
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        held = [gradient for gradient in gradients if gradient is not None]
        scalars = torch.stack([loss.float() for loss in losses.values()])
        flat = torch.cat([*(gradient.flatten() for gradient in held), scalars])
        distributed.all_reduce(flat)
        flat /= self.count
        means = torch.split(flat, [*(gradient.numel() for gradient in held), len(losses)])
        for gradient, mean in zip(held, means, strict=False):
            gradient.copy_(mean.view_as(gradient))
        return dict(zip(losses, means[-1], strict=True))

    def meet(
        self,
        *,
        stop: bool = False,
        minutes: float = 0.0,
        tick: bool = False,
        snapshot: bool = False,
        out_of_memory: bool = False,
    ) -> Moment:
        """Wait for all processes and agree. Raises MemoryRanOutElsewhere where one came because of that.

        Every meeting is the same message, so one that failed may come to whichever the others are waiting in.
        """
        if self.count == 1:
            return Moment(stop, minutes, tick, snapshot)
        own = [minutes, float(tick), float(snapshot)] if self.first else [0.0, 0.0, 0.0]
        told = torch.tensor([float(out_of_memory), float(stop), *own], dtype=torch.float64)
        distributed.all_reduce(told)
        failures, stops, agreed_minutes, ticks, snapshots = told.tolist()
        if failures and not out_of_memory:
            raise MemoryRanOutElsewhere("Another process ran out of memory.")
        return Moment(stops > 0, agreed_minutes, ticks > 0, snapshots > 0)

    def broadcast(self, data: bytes) -> bytes:
        """The first one's bytes, on every process; what the others bring is not looked at."""
        if self.count == 1:
            return data
        size = torch.tensor([len(data)])
        distributed.broadcast(size, src=0)
        message = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.first else None
        if message is None:
            message = torch.empty(int(size), dtype=torch.uint8)
        distributed.broadcast(message, src=0)
        return message.numpy().tobytes()

    def part(self) -> None:
        """Leave each other, all at once: what is left to do is the first one's alone."""
        if self.count > 1:
            self.meet()
            distributed.destroy_process_group()

    @contextmanager
    def own_chance(self, device: torch.device) -> Iterator[None]:
        """Chance of this process's own, for what is drawn picture by picture.

        What is drawn outside is drawn by all alike, for the whole batch. That common chance is what a state saves; the
        processes' own are derived from it here and leave it as it is, so a resumed training draws the same.
        """
        if self.count == 1:
            yield
            return
        cuda = [device] if device.type == "cuda" else []
        common = torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state()
        digest = hashlib.sha256(common.numpy().tobytes() + self.rank.to_bytes(4, "little")).digest()
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(int.from_bytes(digest[:8], "little"))
            yield


ALONE = Ranks()
