"""Real generators with random weights, small enough to paint in a moment, saved and stored as any other checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.storage import Storage
from app.serving.recipe import Recipe
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import TextConfig, TrainConfig
from models.latents.truncation import update_w_avg
from models.presets import preset
from models.registry import build_discriminator, build_generator

torch.set_num_threads(1)  # pictures this small are painted no sooner by more, and other tests run beside these

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]


def small_config(preset_name: str = "tiny", **network: Any) -> TrainConfig:
    config = preset(preset_name, 32)
    small = config.network.model_copy(update={"generator_widths": (32, 16, 16, 8)[: 4 - (preset_name == "classic")]})
    return config.model_copy(update={"network": small.model_copy(update=network)})


@pytest.fixture
def prompted_config() -> TrainConfig:
    """Of networks that know texts."""
    text = TextConfig(encoder="hashed-256", features=256, dim=16)
    return small_config(text=text, discriminator_widths=(16, 8, 8))


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "blobs")


@pytest.fixture
def make_checkpoint(storage: Storage) -> MakeCheckpoint:
    """Store a generator of random weights whose norms have seen pictures; returns its sha256. It has learnt the words
    red, blue and cat where it knows texts."""

    def make(seed: int = 0, config: TrainConfig | None = None, *, judged: bool = True) -> str:
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

    return make


@pytest.fixture
def make_recipe() -> MakeRecipe:
    def make(seed: int = 0, checkpoint: str = "a" * 64, **fields: Any) -> Recipe:
        return Recipe(**{"model": "emoji", "checkpoint": checkpoint, "seed": seed, "size": (32, 32)} | fields)

    return make
