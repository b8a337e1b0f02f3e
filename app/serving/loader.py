"""Loaded generators, by checkpoint and dtype: read once, kept while the memory budget allows."""

import ctypes
import threading
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from time import perf_counter

import torch
from torch import nn

from app.core.errors import CheckpointInvalid
from app.serving.capacity import Capacities
from app.serving.inference import prepare
from app.serving.judge import Judge, load_judge
from app.serving.meters import Meters
from app.serving.paint import LoadedGenerator, paint
from app.serving.recipe import Dtype
from app.serving.runtime import TORCH_DTYPES, Runtime
from app.serving.texts import Meanings, meanings
from models import errors as models_errors
from models.checkpoint import load_generator
from models.checkpoint import read_meta as read_meta  # noqa: PLC0414 for those who may not import torch's part of models

ALIGNMENT = 64  # bytes: what torch gives its own tensors

Key = tuple[str, Dtype]  # sha256, and the numbers it paints with


class Loader:
    """Checkpoints by sha256 on one device. Safe to call from any thread; concurrent first requests load once.

    What it holds stays within budget_bytes; the newest stays however large it is, and while one is read it comes on
    top. What had to leave is freed as soon as no pass uses it any more.
    """

    def __init__(
        self,
        resolve: Callable[[str], Path],
        *,
        device: torch.device | str,
        dtype: Dtype = "float32",
        budget_bytes: int,
        max_batch: int,
        meters: Meters | None = None,
    ) -> None:
        self.resolve = resolve
        self.device = torch.device(device)
        self.runtime = Runtime("cuda" if self.device.type == "cuda" else "cpu", dtype)
        self.budget_bytes = budget_bytes
        self.meters = meters or Meters()
        self._capacities = Capacities(self.runtime.device, max_batch)
        self._loaded: OrderedDict[Key, LoadedGenerator] = OrderedDict()  # the least recently used first
        self._lock = Lock()
        self._background = ThreadPoolExecutor(1, "tidy")  # for what nobody who wants a picture should wait for
        self._closed = Event()
        self._loading: defaultdict[Key, Lock] = defaultdict(Lock)

    def loaded(self, sha256: str, dtype: Dtype | None = None) -> LoadedGenerator | None:
        """A checkpoint that is in memory. dtype: None is the loader's own."""
        key = sha256, dtype or self.runtime.dtype
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def loads(self) -> list[LoadedGenerator]:
        """All that is in memory, the least recently used first."""
        with self._lock:
            return list(self._loaded.values())

    def get(self, sha256: str, dtype: Dtype | None = None) -> LoadedGenerator:
        """A checkpoint, read from its file where it is not in memory. Raises NotFound, Damaged, CheckpointInvalid,
        Conflict."""
        key = sha256, dtype or self.runtime.dtype
        with self._lock:
            loading = self._loading[key]
        with loading:
            try:
                found = self.loaded(*key)
                if found is None:
                    found = self._load(*key)
                    self._keep(key, found)
                return found
            finally:
                with self._lock:
                    self._loading.pop(key, None)

    def unload(self, sha256: str) -> bool:
        """Forget a checkpoint, in every dtype; False where it was not in memory. A pass that uses it goes on with it,
        and one that is being read comes in afterwards."""
        with self._lock:
            leaving = [key for key in self._loaded if key[0] == sha256]
            for key in leaving:
                del self._loaded[key]
        if leaving:
            _give_back(self.device)
        return bool(leaving)

    def judge(self, sha256: str) -> Judge:
        """The judge of a checkpoint, which stays as long as the generator does; for one thread alone. Raises as get()
        does, and InvalidRequest where the checkpoint holds none."""
        loaded = self.get(sha256)
        if loaded.judge is None:
            judge = load_judge(self.resolve(sha256), self.device, loaded.meaning)
            _align(judge.discriminator)
            loaded.judge = judge
            self._make_room()
        return loaded.judge

    def holds(self, key: Key) -> bool:
        """Whether a checkpoint is in memory and will be for a while; it is none the younger for being asked after."""
        with self._lock:
            return key in self._loaded and self._open()

    def close(self) -> None:
        """Stop what runs in the background, which takes a moment."""
        self._closed.set()
        self._background.shutdown(cancel_futures=True)

    def _open(self) -> bool:
        return not self._closed.is_set() and threading.main_thread().is_alive()

    def _stored(self, sha256: str) -> bytes:
        return self.resolve(sha256).read_bytes()

    def _load(self, sha256: str, dtype: Dtype) -> LoadedGenerator:
        started = perf_counter()
        try:
            generator, meta = load_generator(self.resolve(sha256), self.device)
        except models_errors.CheckpointInvalid as error:
            raise CheckpointInvalid(f"Checkpoint {sha256[:12]}: {error}") from error
        prepare(generator, TORCH_DTYPES[dtype])
        _align(generator)
        meaning = meanings(generator)
        capacity, larger = self._capacities.fit(
            generator, dtype, meta.vocabulary, lambda recipes: paint(generator, recipes, meaning)
        )
        runtime = Runtime(self.runtime.device, dtype)
        loaded = LoadedGenerator(sha256, generator, meta, runtime, capacity, meaning, self._stored)
        self._background.submit(capacity.extend, larger, self._open)
        self.meters.loaded(_label(sha256), perf_counter() - started)
        return loaded

    def _keep(self, key: Key, new: LoadedGenerator) -> None:
        with self._lock:
            self._loaded[key] = new
        self._make_room()
        if new.meaning is not None:
            self._background.submit(_learn, weakref.ref(new.meaning), weakref.ref(self), key)

    def _make_room(self) -> None:
        """Forget the least recently used; the newest stays, however large it is."""
        leaving = []
        with self._lock:
            while len(self._loaded) > 1 and sum(kept.bytes for kept in self._loaded.values()) > self.budget_bytes:
                leaving.append(self._loaded.popitem(last=False)[0][0])
        for sha256 in leaving:
            self.meters.evicted(_label(sha256))
        self._background.submit(_give_back, self.device)


def watch(meters: Meters, loaders: Sequence[Loader]) -> None:
    """Show what loaders hold, by the first digits of the checkpoint."""

    def held() -> dict[str, float]:
        sizes: defaultdict[str, float] = defaultdict(float)
        for loader in loaders:
            for loaded in loader.loads():
                sizes[_label(loaded.sha256)] += loaded.bytes
        return sizes

    meters.watch("ganvas_loaded_models", "Checkpoints in memory.", lambda: sum(len(each.loads()) for each in loaders))
    meters.watch("ganvas_loaded_bytes", "Memory of a loaded checkpoint, bytes.", held)


def _label(sha256: str) -> str:
    """What metrics call a checkpoint."""
    return sha256[:12]


def _learn(meaning: weakref.ref[Meanings], loader: weakref.ref[Loader], key: Key) -> None:
    """Runs in the background, until the captions are known, the checkpoint has left, or the process ends."""

    def wanted() -> bool:
        owner = loader()
        return owner is not None and owner.holds(key)

    if (known := meaning()) is not None:
        known.learn(wanted)


@torch.no_grad()
def _align(network: nn.Module) -> None:
    """Give tensors that were read from a file the alignment that torch gives its own: libraries treat the first few
    numbers of others apart, and with that, add in another order, and where a file's bytes come to lie is chance."""
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.clone()


def _give_back(device: torch.device) -> None:
    """Return to the system what is free: allocators keep it for themselves, and others on this machine may want it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif _trim is not None:
        _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
