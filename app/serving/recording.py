"""Networks whose operations torch plays back from a recording, without Python and without its lock.

A pass is some dozens of operations, and between two of them another thread, such as the event loop's, would otherwise
take the lock and keep it for a millisecond.
"""

import warnings
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

_one_at_a_time = Lock()  # torch's recorder belongs to one thread

# The recorder is deprecated in favour of compilers, which want one on this machine; its guesses at what may vary are
# wrong. Filters belong to the whole process, so none are put up around a recording, where threads would mix them up.
warnings.filterwarnings("ignore", "`torch.jit.trace`")
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]

Recording = Callable[..., Tensor]  # from a network's inputs, and then its weights, to what it gives


class Playback(nn.Module):
    """A network that plays back what was recorded of it, or of another one of the same shape, with its own weights."""

    def __init__(self, network: nn.Module, recording: Recording) -> None:
        super().__init__()
        self.network = network
        self._recording = recording
        self._weights = [group[name] for group, name in _weights(network)]

    def forward(self, *inputs: Tensor | None) -> Tensor:
        """What the network gives; inputs that are None were so when it was recorded."""
        return self._recording(*(given for given in inputs if given is not None), *self._weights)


def record(network: nn.Module, *inputs: Tensor) -> Recording:
    """What a network does in evaluation mode, by the example of some inputs; at playback their first dimension may be
    another, if its size here is no constant of the network.

    torch never frees what it has recorded, so weights are no part of it: they are inputs too.
    """
    places, networks, count = _weights(network), [network], len(inputs)
    own = [group[name] for group, name in places]

    def play(*tensors: Tensor) -> Tensor:
        _put(places, tensors[count:])
        given: Tensor = networks[0](*tensors[:count])
        return given

    try:
        with _one_at_a_time, torch.inference_mode():
            recording: Recording = torch.jit.trace(play, (*inputs, *own), check_trace=False)  # type: ignore[no-untyped-call]
    finally:
        _put(places, own)
        places.clear()  # torch keeps `play`, and what it refers to
        networks.clear()
    return recording


def _weights(network: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Where a network's parameters and buffers are kept, in one order for all of its kind."""
    groups = (group for layer in network.modules() for group in (layer._parameters, layer._buffers))
    return [(group, name) for group in groups for name, weight in group.items() if weight is not None]


def _put(places: list[tuple[dict[str, Any], str]], weights: Sequence[Tensor]) -> None:
    for (group, name), weight in zip(places, weights, strict=True):
        group[name] = weight
