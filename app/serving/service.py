"""The painter: recipes in, files out; loaders, batchers, judge, cache and encoder as one."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from app.core.errors import Busy
from app.core.settings import MIB, Settings
from app.core.storage import Storage
from app.serving.batcher import TIMEOUT_SECONDS, Batcher
from app.serving.cache import FileCache
from app.serving.encode import encode
from app.serving.line import Finish
from app.serving.loader import Loader, watch
from app.serving.meters import Meters
from app.serving.recipe import MetadataLevel, OutputFormat, Recipe
from app.serving.repaint import Repainter
from app.serving.runtime import devices, runtime

Result = TypeVar("Result")

MAX_REPAINTS = 4  # works that run or wait: each may take a minute, and holds a file
REPAINT_SECONDS = 10.0  # that a film usually takes
GPU_FINISHERS = 4  # threads that turn pixels into files while a GPU paints; the compression runs outside Python's lock


class FileKind(NamedTuple):
    """Which file is made of a picture."""

    output_format: OutputFormat = "png"
    compression: int | None = None
    metadata: MetadataLevel = "full"


@dataclass(frozen=True)
class Asker:
    """Who asks: callers share the devices in turns, and none waits longer than it wants to."""

    name: str = ""
    timeout: float = TIMEOUT_SECONDS  # seconds until the pass must have begun


NOBODY = Asker()


class Painter:
    """Paints for everybody who asks, on every device there is. Make it in the event loop that will ask."""

    def __init__(self, settings: Settings, storage: Storage, meters: Meters | None = None) -> None:
        self.meters = meters or Meters()
        self._cache = FileCache(settings.picture_cache_mib * MIB, self.meters)
        places = devices(settings.device)
        self.runtime = runtime(places[0], settings.dtype)
        torch.backends.cudnn.deterministic = True  # else a transposed convolution may add in any order
        self._batchers = [self._batcher(place, settings, storage) for place in places]
        watch(self.meters, [batcher.loader for batcher in self._batchers])
        # One thread for all: those who want the best of many leave the cores to those who want a picture.
        self._judging = ThreadPoolExecutor(1, "judge", initializer=_one_threaded)
        self._repainting = ThreadPoolExecutor(1, "repaint", initializer=_one_threaded)
        self._repaints = 0  # that run or wait
        self._loading = ThreadPoolExecutor(len(places), "load", initializer=_one_threaded)
        self.meters.watch("ganvas_pictures_waiting", "Pictures asked for and not yet answered.", self.waiting)

    def _batcher(self, device: torch.device, settings: Settings, storage: Storage) -> Batcher:
        """On a CPU one-threaded passes side by side: threads that share a pass wait for each other at every layer, and
        spin meanwhile, which is dear as soon as the server's own work, or a training, wants a core."""
        loader = Loader(
            storage.path,
            device=device,
            dtype=self.runtime.dtype,
            budget_bytes=settings.model_memory_mib * MIB,
            max_batch=settings.max_batch,
            meters=self.meters,
        )
        on_cpu = device.type == "cpu"
        return Batcher(
            loader,
            max_waiting=settings.max_waiting_pictures,
            painters=(settings.threads or torch.get_num_threads()) if on_cpu else 1,
            finishers=0 if on_cpu else GPU_FINISHERS,
            prepare_thread=_one_threaded,
            meters=self.meters,
        )

    def waiting(self) -> int:
        """Pictures asked for and not yet answered."""
        return sum(batcher.stats.waiting for batcher in self._batchers)

    async def picture(self, recipe: Recipe, kind: FileKind = FileKind(), asker: Asker = NOBODY) -> bytes:  # noqa: B008
        """The file of one recipe. Raises NotFound, CheckpointInvalid, InvalidRequest, Busy, Unavailable."""
        (file,) = await self.pictures([recipe], kind, asker)
        return file

    async def pictures(
        self,
        recipes: Sequence[Recipe],
        kind: FileKind = FileKind(),  # noqa: B008 - it cannot be changed
        asker: Asker = NOBODY,
    ) -> list[bytes]:
        """The files of recipes, in order: all of them or an error, as of picture()."""
        keys = [(recipe.hash(), kind) for recipe in recipes]
        files = {key: self._cache.get(key) for key in keys}
        missing = {key: recipe for key, recipe in zip(keys, recipes, strict=True) if files[key] is None}
        if missing:
            painted = await self._submit(list(missing.values()), partial(self.encode, kind), asker)
            for key, file in zip(missing, painted, strict=True):
                files[key] = file
                self._cache.put(key, file)
        return [file for key in keys if (file := files[key]) is not None]

    def encode(self, kind: FileKind, recipe: Recipe, pixels: NDArray[np.uint8]) -> bytes:
        """The file of a picture that is painted already, [R, R, C]; from any thread."""
        started = perf_counter()
        file = encode(
            pixels,
            output_format=kind.output_format,
            recipe=recipe,
            compression=kind.compression,
            metadata=kind.metadata,
        )
        self.meters.encoded(kind.output_format, perf_counter() - started)
        return file

    async def pixels(self, recipes: Sequence[Recipe], asker: Asker = NOBODY) -> list[NDArray[np.uint8]]:
        """The pictures of recipes as they are painted, each [R, R, C]; raises as picture() does."""
        return await self._submit(recipes, _as_painted, asker)

    async def matches(self, recipes: Sequence[Recipe], asker: Asker = NOBODY) -> list[float]:
        """How well the picture of each recipe fits its text by D, higher is better; all of one text and checkpoint.

        Raises as picture() does, and InvalidRequest where the checkpoint holds no D.
        """
        run = asyncio.get_running_loop().run_in_executor
        judge = await run(self._judging, self._batchers[0].loader.judge, recipes[0].checkpoint)
        pictures = await self.pixels(recipes, asker)
        return await run(self._judging, judge.matches, recipes[0].text, pictures)

    async def repaint(self, work: Callable[[Repainter], Result], asker: Asker = NOBODY) -> Result:
        """What work makes of pictures that it asks for in a thread of its own, one such work after the other; when it
        is cancelled it stops at its next pictures. Raises what work does, and Busy where several wait already."""
        if self._repaints >= MAX_REPAINTS:
            message = f"{self._repaints} long files are being proved; at most {MAX_REPAINTS} may wait."
            raise Busy(message, retry_after=REPAINT_SECONDS)
        loop = asyncio.get_running_loop()
        repainter = Repainter(self._batchers[0], loop, asker.name)
        self._repaints += 1
        done = loop.run_in_executor(self._repainting, work, repainter)
        done.add_done_callback(self._repainted)
        try:
            return await done
        finally:
            repainter.stop()

    def _repainted(self, _done: asyncio.Future[Any]) -> None:
        self._repaints -= 1

    async def load(self, sha256: str) -> int:
        """Have a checkpoint in memory, on every device, before it is asked for; the bytes it takes there. Whoever
        draws meanwhile is not kept from it. Raises NotFound, CheckpointInvalid, Conflict."""
        run = asyncio.get_running_loop().run_in_executor
        loads = [run(self._loading, batcher.loader.get, sha256) for batcher in self._batchers]
        return sum(loaded.bytes for loaded in await asyncio.gather(*loads))

    async def unload(self, sha256: str) -> bool:
        """Forget a checkpoint until it is asked for again; False where no device had it."""
        unloads = [asyncio.to_thread(batcher.loader.unload, sha256) for batcher in self._batchers]
        return any(await asyncio.gather(*unloads))

    def loads(self) -> dict[str, int]:
        """The checkpoints in memory, by sha256, and the bytes each takes on all devices together."""
        held: Counter[str] = Counter()
        for batcher in self._batchers:
            for loaded in batcher.loader.loads():
                held[loaded.sha256] += loaded.bytes
        return held

    async def _submit(self, recipes: Sequence[Recipe], finish: Finish, asker: Asker) -> list[Any]:
        """The device with the fewest waiting pictures takes them."""
        batcher = min(self._batchers, key=lambda each: each.stats.waiting)
        return await batcher.submit(recipes, finish, caller=asker.name, timeout=asker.timeout)

    async def close(self) -> None:
        """Stop the threads; whoever still waits gets Unavailable."""
        for batcher in self._batchers:
            await batcher.close()
        for executor in (self._judging, self._loading, self._repainting):
            await asyncio.to_thread(executor.shutdown, cancel_futures=True)
        for batcher in self._batchers:
            await asyncio.to_thread(batcher.loader.close)


def _one_threaded() -> None:
    torch.set_num_threads(1)


def _as_painted(_recipe: Recipe, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels
