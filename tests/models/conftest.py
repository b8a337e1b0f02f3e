from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from models.config import TextConfig, TrainConfig
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator

SMALL = {"z_dim": 8, "w_dim": 8, "generator_widths": (8, 8, 8, 4), "discriminator_widths": (8, 8, 4)}


@pytest.fixture(autouse=True)
def same_chance() -> Iterator[None]:
    """Every test starts from the same random state, and two threads are enough for tiny networks."""
    torch.manual_seed(0)
    yield


@pytest.fixture
def small_config() -> Callable[..., TrainConfig]:
    """A preset at 32 px with networks of a few thousand weights."""

    def build(name: str = "tiny", **overrides: object) -> TrainConfig:
        config = preset(name, 32)
        shape = SMALL if name == "tiny" else {**SMALL, "generator_widths": (8, 8, 4)}
        network = config.network.model_copy(update=shape)
        return TrainConfig.model_validate(config.model_dump() | {"network": network.model_dump()} | overrides)

    return build


@pytest.fixture
def small_generator(small_config: Callable[..., TrainConfig]) -> Generator:
    """G of `tiny` whose batch norms have seen a few batches, so that its pictures depend on every buffer."""
    return _warmed_up(build_generator(small_config().network))


@pytest.fixture
def text_config() -> TextConfig:
    """Hashed texts in few buckets."""
    return TextConfig(encoder="hashed-256", features=256, dim=6)


@pytest.fixture
def prompted_generator(small_config: Callable[..., TrainConfig], text_config: TextConfig) -> Generator:
    """The same that takes prompts, each of which shows."""
    generator = build_generator(small_config().network.model_copy(update={"text": text_config}))
    with torch.no_grad():
        for normalise in generator.synthesis.get_submodule("norms"):  # type: ignore[union-attr]
            normalise.affine.weight.mul_(20)
    return _warmed_up(generator)


@pytest.fixture
def penalty_slopes() -> Callable[[nn.Module, Tensor, list[nn.Parameter]], tuple[float, float]]:
    """How a critic's squared input gradient changes along a random direction of its weights: by differences of two
    values, and by differentiating twice."""

    def slopes(critic: nn.Module, x: Tensor, weights: list[nn.Parameter]) -> tuple[float, float]:
        step = [torch.randn_like(weight) for weight in weights]

        def penalty() -> Tensor:
            (gradient,) = torch.autograd.grad(critic(x).logits.sum(), x, create_graph=True)
            return gradient.square().sum()

        found = torch.autograd.grad(penalty(), weights, allow_unused=True)
        along = sum(float((s * d).sum()) for s, d in zip(found, step, strict=True) if s is not None)
        ends = []
        for sign in (1, -2):
            with torch.no_grad():
                for weight, direction in zip(weights, step, strict=True):
                    weight.add_(direction, alpha=sign * 1e-9)
            ends.append(float(penalty().detach()))
        return (ends[0] - ends[1]) / 2e-9, along

    return slopes


def _warmed_up(generator: Generator) -> Generator:
    with torch.no_grad():
        for _ in range(3):
            c = None if generator.text is None else generator.text(torch.rand(16, len(generator.text.weight)))
            generator(torch.randn(16, generator.z_dim), c)
        # First weights paint greys that a test could not tell apart.
        generator.synthesis.get_parameter("paint.weight").mul_(50)
    return generator.eval()
