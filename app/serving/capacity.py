"""What a network can take: its batch sizes and what a pass needs of memory, measured and not assumed.

Neither depends on the values of weights, only on shapes, on the runtime and on the threads of a pass: libraries choose
their code by those. So what was found holds for every checkpoint of the same networks, the next snapshot of a training
or one that comes back after it had to leave, for as long as the process lives. It is not kept on disk: the processor,
its caches and the libraries may be others at the next start, and no key would tell for sure.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from app.serving.recipe import DeviceKind, Dtype, Recipe
from app.serving.recording import Playback, Recording, record
from app.serving.reproduce import DECIDING, SIZES, Comparison, Paint
from app.serving.texts import block_rows
from models.networks.generator import Generator

# Of a pass's largest features. CPU: from 4 to 16 MiB is best on 2 cores with 32 MiB of L3; beyond, each picture takes
# longer, and the first one too. GPU: so that a pass fits beside whatever else is on a small one.
MOST_FEATURE_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}
RECORDED = 3  # pictures: a number that is no constant of any network

Recordings = tuple[Recording, Recording]  # of mapping and synthesis


class Capacity:
    """What a network can take in one runtime. More sizes come in while it is compared further."""

    def __init__(self, sizes: Sequence[int], pass_bytes: int) -> None:
        self.sizes = tuple(sizes)  # pictures a pass, rising; all of them paint the same bits
        self.pass_bytes = pass_bytes  # tensors alive at once in the largest pass there may be, without the weights

    def extend(self, sizes: Iterable[int], wanted: Callable[[], bool]) -> None:
        """Take in larger sizes as they are found, for as long as that is wanted."""
        for size in sizes:
            self.sizes = (*self.sizes, size)
            if not wanted():
                return


class Capacities:
    """Of every network that one device has met, measured at the first checkpoint of it."""

    def __init__(self, device: DeviceKind, max_batch: int) -> None:
        self.device = device
        self.max_batch = max_batch
        self._known: dict[tuple[str, Dtype, int], tuple[Recordings | None, Capacity]] = {}

    def fit(
        self, generator: Generator, dtype: Dtype, words: Sequence[str], paint: Paint
    ) -> tuple[Capacity, Iterator[int]]:
        """Let a prepared generator play back the recordings of its network, and tell what that can take; with larger
        batch sizes that agree too, to be found one by one when there is time.

        words: some that it knows; paint: a pass of it.
        """
        key = generator.config.model_dump_json(), dtype, torch.get_num_threads()
        if key in self._known:
            recordings, capacity = self._known[key]
            _play_back(generator, recordings)
            return capacity, iter(())
        probes = _probes(generator.config.resolution, words)
        memory = _memory(probes[:1], paint)
        recordings = _record(generator)
        _play_back(generator, recordings)
        most = max(1, MOST_FEATURE_BYTES[self.device] // memory.largest)
        comparison = Comparison(paint, probes[: min(most, max(DECIDING, self.max_batch))])
        sizes = [size for size in comparison.sizes if size <= self.max_batch] or comparison.sizes[:1]
        capacity = Capacity(sizes, max(sizes[0], min(most, self.max_batch)) * memory.peak)
        self._known[key] = recordings, capacity
        return capacity, comparison.others()


def _record(generator: Generator) -> Recordings | None:
    """None on a GPU: there a recording would be compiled after its first passes, and paint other bits from then on."""
    device, rows = generator.w_avg.device, block_rows(generator.w_avg.device)
    if device.type != "cpu":
        return None
    told = [] if generator.text is None else [torch.ones(rows, generator.text.out.out_features)]
    mapping = record(generator.mapping, torch.ones(rows, generator.z_dim), *told)
    return mapping, record(generator.synthesis, generator.w_avg.expand(RECORDED, generator.num_ws, -1))


def _play_back(generator: Generator, recordings: Recordings | None) -> None:
    if recordings is not None:
        mapping, synthesis = recordings
        generator.mapping = Playback(generator.mapping, mapping)  # type: ignore[assignment] # it maps z and c to w too
        generator.synthesis = Playback(generator.synthesis, synthesis)


def _memory(probes: Sequence[Recipe], paint: Paint) -> "TensorMemory":
    """Of a pass, before it is recorded: a recording hides its operations."""
    paint(probes)  # what is remembered of a text, for good, is no part of a pass
    memory = TensorMemory()
    with memory:
        paint(probes)
    return memory


def _probes(resolution: int, words: Sequence[str]) -> list[Recipe]:
    """Recipes of every kind of arithmetic, to compare batch sizes with."""
    kinds = [(0.7, None), (1.0, None), (-0.5, 1), (0.7, 1), (0.0, None)]
    prompts = [None, *words[:3]]  # of an unconditional model: None alone
    return [
        Recipe(
            model="probe",
            checkpoint="0" * 64,
            seed=seed,
            truncation_psi=kinds[seed % len(kinds)][0],
            truncation_cutoff=kinds[seed % len(kinds)][1],
            size=(resolution, resolution),
            prompt=prompts[seed % len(prompts)],
        )
        for seed in range(SIZES[-1])
    ]


class TensorMemory(TorchFunctionMode):
    """Within it, the bytes of tensors made and still alive are counted: `peak` at once, `largest` the largest one.

    What a library takes for itself within one operation, such as weights in another order, is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.largest = self._alive = 0
        self._counted: set[int] = set()  # addresses

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {storage.data_ptr() for storage in _storages((args, kwargs))}  # weights among them, and views of them
        made = func(*args, **(kwargs or {}))
        for storage in _storages(made):
            if storage.data_ptr() not in given:
                self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._counted:
            return
        self._counted.add(address)
        self._alive += size
        self.peak, self.largest = max(self.peak, self._alive), max(self.largest, size)
        weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._counted.discard(address)
        self._alive -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in tree_leaves(values) if isinstance(value, Tensor)]


def held_bytes(network: nn.Module) -> int:
    """What parameters and buffers keep alive: each storage once, and all of it where they are only a part."""
    storages = {}
    for tensor in (*network.parameters(), *network.buffers()):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
