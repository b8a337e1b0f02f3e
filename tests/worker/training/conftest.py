"""A tiny GAN and a tiny dataset, for tests that train in a second."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from models.config import NetworkConfig, TextConfig, TrainConfig
from models.presets import preset
from models.text import HashedEncoder
from worker.training.texts import Texts


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small spend more time waiting for a second thread than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny_config() -> Callable[..., TrainConfig]:
    """The tiny preset with a handful of features at 32 px, and the settings given."""

    def build(name: str = "tiny", *, shape: dict[str, Any] | None = None, **settings: Any) -> TrainConfig:
        chosen = {"batch_size": 8, "total_kimg": 0.096, "max_minutes": None, "seed": 1} | settings
        network = preset(name, 32).network.model_dump()
        widths = {
            "generator_widths": (16, 8, 8, 4)[: len(network["generator_widths"])],
            "discriminator_widths": (16, 8, 8),
        }
        config = preset(name, 32).model_dump() | chosen
        return TrainConfig.model_validate(config | {"network": NetworkConfig(**(network | widths | (shape or {})))})

    return build


@pytest.fixture
def told() -> dict[str, Any]:
    """The shape of networks that know texts; for `tiny_config(shape=told)`."""
    return {"text": TextConfig(encoder="hashed-256", features=256, dim=8)}


@pytest.fixture
def texts() -> Texts:
    """What is said of the pictures: a colour in the captions, a kind in the labels, of some neither."""
    captions = [[f"a {colour} disc", None][number % 5 == 4] for number, colour in enumerate(["red", "blue"] * 20)]
    return Texts.of(captions, ["disc", None] * 20, HashedEncoder(256))


@pytest.fixture
def pictures() -> np.ndarray:
    """Forty discs of many colours on white, uint8 [40, 32, 32, 3]."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :32]
    array = np.full((40, 32, 32, 3), 255, dtype=np.uint8)
    for picture in array:
        (top, left), radius = random.uniform(10, 22, 2), random.uniform(4, 10)
        picture[(rows - top) ** 2 + (columns - left) ** 2 < radius**2] = random.integers(0, 200, 3)
    return array
