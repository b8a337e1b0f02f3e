"""Generators and the threads that paint with them, each pass by one thread, as the service paints."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, Self, TypeVar

import torch

from app.core.settings import MIB, Settings
from app.core.storage import Storage
from app.serving.encode import Pixels
from app.serving.frames import Place
from app.serving.loader import Loader
from app.serving.paint import LoadedGenerator
from app.serving.runtime import devices, runtime

AHEAD: Final = 2  # passes that wait for each thread, so that none is idle; more would only take memory

Result = TypeVar("Result")


class Stopped(Exception):
    """The drawing was asked to stop; tasks.py says what becomes of its job."""


class Engine:
    """Paints on one device for as long as a `with` block lasts, in which the thread that entered it takes one core too.

    On a CPU there are as many threads as cores, or as the settings allow; see Painter in app/serving/service.py.
    """

    def __init__(self, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
        self._settings = settings
        self._storage = storage
        self._should_stop = should_stop

    def __enter__(self) -> Self:
        device = devices(self._settings.device)[0]
        self.runtime = runtime(device, self._settings.dtype)
        self._torch_threads = torch.get_num_threads()
        self.threads = (self._settings.threads or self._torch_threads) if device.type == "cpu" else 1
        torch.backends.cudnn.deterministic = True  # as the service has it
        torch.set_num_threads(1)  # for what is placed here, and as what a network can take depends on it
        self._loader = Loader(
            self._storage.path,
            device=device,
            dtype=self.runtime.dtype,
            budget_bytes=self._settings.model_memory_mib * MIB,
            max_batch=self._settings.max_batch,
        )
        self._pool = ThreadPoolExecutor(self.threads, "paint", initializer=partial(torch.set_num_threads, 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._loader.close()
        torch.set_num_threads(self._torch_threads)

    def load(self, sha256: str) -> LoadedGenerator:
        """A checkpoint, ready to paint. Raises NotFound, CheckpointInvalid, Conflict, Stopped."""
        self.check()
        return self._loader.get(sha256)

    def pictures(self, loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterator[Pixels]:
        """Pictures by their numbers, in order, each [R, R, C]; `place` says where they are. Raises Stopped."""
        works = (partial(_paint, loaded, part, place) for part in self.passes(loaded, numbers))
        for painted in self.in_order(works):
            yield from painted

    def in_order(self, works: Iterable[Callable[[], Result]]) -> Iterator[Result]:
        """What pieces of work give, in their order; some are done ahead. Raises Stopped within a pass or two."""
        waiting: deque[Future[Result]] = deque()
        try:
            for work in works:
                waiting.append(self._pool.submit(work))
                if len(waiting) > self.threads * AHEAD:
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)
        finally:
            for future in waiting:
                future.cancel()

    def passes(self, loaded: LoadedGenerator, numbers: Sequence[int]) -> Iterator[Sequence[int]]:
        """Numbers of pictures, as many together as a pass should paint."""
        start = 0
        while start < len(numbers):
            size = loaded.batch_size(math.ceil((len(numbers) - start) / self.threads))
            yield numbers[start : start + size]
            start += size

    def _first(self, waiting: deque[Future[Result]]) -> Result:
        self.check()
        return waiting.popleft().result()

    def check(self) -> None:
        """Raises Stopped where that is asked for."""
        if self._should_stop():
            raise Stopped


def _paint(loaded: LoadedGenerator, numbers: Sequence[int], place: Place) -> Iterable[Pixels]:
    return loaded.render_w(place(numbers))
