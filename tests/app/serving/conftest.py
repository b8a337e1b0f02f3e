"""Real generators with random weights, small enough to paint in a moment, saved and stored as any other checkpoint."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from app.core.storage import Storage
from app.serving.batcher import Batcher
from app.serving.loader import Loader
from app.serving.recipe import Recipe
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import TextConfig, TrainConfig
from models.latents.truncation import update_w_avg
from models.presets import preset
from models.registry import build_discriminator, build_generator

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
SECONDS = 60  # longer than any of this takes, so that a lost answer fails the test instead of hanging it


def small_config(preset_name: str = "tiny", **network: Any) -> TrainConfig:
    config = preset(preset_name, 32)
    small = config.network.model_copy(update={"generator_widths": (32, 16, 16, 8)[: 4 - (preset_name == "classic")]})
    return config.model_copy(update={"network": small.model_copy(update=network)})


def prompted() -> TrainConfig:
    text = TextConfig(encoder="hashed-256", features=256, dim=16)
    return small_config(text=text, discriminator_widths=(16, 8, 8))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the service's painters have it; what ran in this process before may have left another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prompted_config() -> TrainConfig:
    """Of networks that know texts."""
    return prompted()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


def checkpoint_in(storage: Storage, seed: int = 0, config: TrainConfig | None = None, *, judged: bool = True) -> str:
    config = config or small_config()
    torch.manual_seed(seed)
    generator = build_generator(config.network)
    with torch.no_grad():
        for weight in generator.synthesis.parameters():
            weight.mul_(6)  # first weights paint all but grey
        for _ in range(4):
            c = None if generator.text is None else generator.text(torch.rand(16, len(generator.text.weight)))
            generator(torch.randn(16, generator.z_dim), c)
    generator.eval()
    update_w_avg(generator)
    vocabulary = () if generator.text is None else ("red", "cat", "blue")
    meta = CheckpointMeta(config=config, kimg=1, minutes=1, vocabulary=vocabulary)
    discriminator = build_discriminator(config.network) if judged else None
    return storage.put(save_checkpoint(None, generator, meta, discriminator=discriminator))


@pytest.fixture
def make_checkpoint(storage: Storage) -> MakeCheckpoint:
    """Store a generator of random weights whose norms have seen pictures; returns its sha256. It has learnt the words
    red, blue and cat where it knows texts."""
    return partial(checkpoint_in, storage)


@pytest.fixture(scope="session")
def studio_storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """What tests that change nothing share."""
    return Storage(tmp_path_factory.mktemp("serving") / "blobs")


@pytest.fixture(scope="session")
def studio_loader(studio_storage: Storage) -> Loader:
    """Checkpoints of `studio_storage`."""
    return Loader(studio_storage.path, device="cpu", budget_bytes=2**30, max_batch=8)


@pytest.fixture(scope="session")
def studio_checkpoints(studio_storage: Storage) -> list[str]:
    """Three checkpoints of one network."""
    return [checkpoint_in(studio_storage, seed) for seed in range(3)]


@pytest.fixture(scope="session")
def studio_prompted(studio_storage: Storage) -> str:
    """A checkpoint that knows texts."""
    return checkpoint_in(studio_storage, config=prompted())


@pytest.fixture
def make_recipe() -> MakeRecipe:
    def make(seed: int = 0, checkpoint: str = "a" * 64, **fields: Any) -> Recipe:
        return Recipe(**{"model": "emoji", "checkpoint": checkpoint, "seed": seed, "size": (32, 32)} | fields)

    return make


@pytest.fixture
def anyio_backend() -> str:
    """What runs the tests that are coroutines."""
    return "asyncio"


class Gate:
    """Keeps the threads that compute from starting until everything is in line."""

    def __init__(self) -> None:
        self.event = Event()

    def open(self) -> None:
        self.event.set()

    def wait(self) -> None:
        self.event.wait(SECONDS)


@asynccontextmanager
async def batching_on(
    storage: Storage,
    gate: Gate | None = None,
    *,
    max_waiting: int = 1000,
    painters: int = 1,
    finishers: int = 0,
    resolve: Callable[[str], Path] | None = None,
) -> AsyncIterator[Batcher]:
    loader = Loader(resolve or storage.path, device="cpu", budget_bytes=2**30, max_batch=8)
    prepare_thread = gate.wait if gate else lambda: None
    batcher = Batcher(
        loader, max_waiting=max_waiting, painters=painters, finishers=finishers, prepare_thread=prepare_thread
    )
    try:
        async with asyncio.timeout(SECONDS):
            yield batcher
    finally:
        if gate:
            gate.open()
        await batcher.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def batching(storage: Storage) -> Callable[..., AbstractAsyncContextManager[Batcher]]:
    """A batcher for a while, over the stored checkpoints."""
    return partial(batching_on, storage)


@pytest.fixture
def in_line() -> Callable[..., Awaitable[list[asyncio.Task[list[Any]]]]]:
    """Asks; each request is in line, in its order, when it returns."""
    return line_up


async def line_up(batcher: Batcher, *groups: list[Recipe], finish: Any = None) -> list[asyncio.Task[list[Any]]]:
    """One request a group, each in line, in this order, when this returns."""
    tasks = [
        asyncio.create_task(batcher.submit(group) if finish is None else batcher.submit(group, finish))
        for group in groups
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks
