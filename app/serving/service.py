"""The painter: recipes in, files out; loader, batcher, judge and encoder as one."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from app.core.settings import MIB, Settings
from app.core.storage import Storage
from app.serving.batcher import Batcher, Stats
from app.serving.encode import encode
from app.serving.loader import Loader
from app.serving.recipe import MetadataLevel, OutputFormat, Recipe


class Painter:
    """Paints for everybody who asks, on one device. Make it in the event loop that will ask."""

    def __init__(self, settings: Settings, storage: Storage) -> None:
        self._loader = Loader(
            storage.path,
            device=settings.device,
            budget_bytes=settings.model_memory_mib * MIB,
            max_batch=settings.max_batch,
        )
        torch.backends.cudnn.deterministic = True  # else a transposed convolution may add in any order
        # On a CPU, one-threaded passes side by side: threads that share a pass wait for each other at every layer, and
        # spin meanwhile, which is dear as soon as the server's own work, or a training, wants a core.
        on_cpu = self._loader.device.type == "cpu"
        one_threaded = partial(torch.set_num_threads, 1)
        self._batcher = Batcher(
            self._loader,
            max_waiting=settings.max_waiting_pictures,
            painters=(settings.threads or torch.get_num_threads()) if on_cpu else 1,
            prepare_thread=one_threaded,
        )
        # One thread for all: those who want the best of many leave the cores to those who want a picture.
        self._judging = ThreadPoolExecutor(1, "judge", initializer=one_threaded)

    @property
    def stats(self) -> Stats:
        """Counts and times since the start, and what waits."""
        return self._batcher.stats

    async def picture(
        self,
        recipe: Recipe,
        output_format: OutputFormat = "png",
        compression: int | None = None,
        metadata: MetadataLevel = "full",
    ) -> bytes:
        """The file of one recipe. Raises NotFound, CheckpointInvalid, InvalidRequest, Busy, Unavailable."""
        (file,) = await self.pictures([recipe], output_format, compression, metadata)
        return file

    async def pictures(
        self,
        recipes: Sequence[Recipe],
        output_format: OutputFormat = "png",
        compression: int | None = None,
        metadata: MetadataLevel = "full",
    ) -> list[bytes]:
        """The files of recipes, in order: all of them or an error, as of picture()."""

        def finish(recipe: Recipe, pixels: NDArray[np.uint8]) -> bytes:
            return encode(
                pixels, output_format=output_format, recipe=recipe, compression=compression, metadata=metadata
            )

        return await self._batcher.submit(recipes, finish)

    async def matches(self, recipes: Sequence[Recipe]) -> list[float]:
        """How well the picture of each recipe fits its text by D, higher is better; all of one text and checkpoint.

        Raises as picture() does, and InvalidRequest where the checkpoint holds no D.
        """
        run = asyncio.get_running_loop().run_in_executor
        judge = await run(self._judging, self._loader.judge, recipes[0].checkpoint)
        pictures = await self._batcher.submit(recipes)
        return await run(self._judging, judge.matches, recipes[0].text, pictures)

    async def close(self) -> None:
        """Stop the threads; whoever still waits gets Unavailable."""
        await self._batcher.close()
        await asyncio.to_thread(self._judging.shutdown)
