"""What a pass takes is counted tensor by tensor, and the largest pass follows from it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.serving import capacity
from app.serving.capacity import Capacities, TensorMemory, held_bytes
from app.serving.inference import prepare
from app.serving.paint import paint
from app.serving.recipe import Recipe
from models.config import NetworkConfig
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator

FLOAT = 4  # bytes


def network(architecture: str) -> NetworkConfig:
    """32 pixels, painted from 8 maps."""
    sides = {"generator_widths": (32, 16, 16, 8), "discriminator_widths": (8,) * (3 + (architecture == "r3gan"))}
    shape = {"architecture": architecture, "resolution": 32, "z_dim": 16, "w_dim": 16, "mapping_layers": 1}
    return NetworkConfig.model_validate({**shape, **sides, "upsampling": "resize"})


def generator_of(config: NetworkConfig, dtype: torch.dtype = torch.float32) -> Generator:
    generator = build_generator(config).requires_grad_(False).eval()
    prepare(generator, dtype)
    return generator


def fitted(config: NetworkConfig, max_batch: int, generator: Generator | None = None) -> capacity.Capacity:
    made = generator or generator_of(config)
    found, larger = Capacities("cpu", max_batch).fit(made, "float32", (), lambda recipes: paint(made, recipes))
    found.extend(larger, lambda: True)
    return found


def test_tensors_are_counted_while_they_live() -> None:
    with torch.inference_mode(), TensorMemory() as memory:
        first = torch.empty(1000)
        second = torch.empty(2000)
        del first
        third = torch.empty(3000)
        view = third[10:]
        del third
        view.add_(1)
        fourth = torch.empty(100)
        del second, view
        last = torch.empty(4000)

    assert (memory.peak, memory.largest) == (5100 * FLOAT, 4000 * FLOAT)
    assert len(fourth) + len(last) == 4100


def test_weights_and_views_of_them_are_no_part_of_a_pass() -> None:
    layer = nn.Linear(100, 50).requires_grad_(False)
    x = torch.zeros(2, 100)
    with TensorMemory() as memory:
        functional.relu_(layer(x) + layer.weight[:, :50].T.chunk(5)[1][:2])

    assert memory.peak == 2 * 2 * 50 * FLOAT  # of the layer and of the sum


@pytest.mark.parametrize(("architecture", "maps"), [("dcgan", 8), ("fastgan", 16), ("r3gan", 16)])
def test_the_largest_features_are_those_there_really_are(architecture: str, maps: int) -> None:
    generator = generator_of(network(architecture))
    with torch.inference_mode(), TensorMemory() as memory:
        generator.synthesis(torch.zeros(1, generator.num_ws, 16))

    assert memory.largest == maps * 32 * 32 * FLOAT


def test_features_of_half_the_bytes_take_half_the_memory() -> None:
    sizes = {}
    for dtype in (torch.float32, torch.bfloat16):
        generator = generator_of(preset("few-shot", 64).network, dtype)
        with torch.inference_mode(), TensorMemory() as memory:
            generator.synthesis(torch.zeros(1, generator.num_ws, generator.w_dim))
        sizes[dtype] = memory.largest

    assert sizes[torch.bfloat16] == sizes[torch.float32] // 2


def test_no_pass_is_larger_than_the_caches_or_the_setting_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    config = network("dcgan")
    largest = 8 * 32 * 32 * FLOAT
    monkeypatch.setitem(capacity.MOST_FEATURE_BYTES, "cpu", 12 * largest)

    assert max(fitted(config, 32).sizes) == 12
    assert max(fitted(config, 10).sizes) == 10
    assert len(fitted(config, 1).sizes) == 1
    assert fitted(config, 12).pass_bytes == 2 * fitted(config, 6).pass_bytes >= 12 * largest


def test_the_smallest_pass_does_not_depend_on_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a lone picture differs from those of larger passes, it is padded, whatever the largest pass may be."""

    def off_alone(recipes: Sequence[Recipe]) -> Tensor:
        return torch.tensor([[float(recipe.seed)] for recipe in recipes]) + 1e-3 * (len(recipes) == 1)

    generator = generator_of(network("dcgan"))
    found = {}
    for max_batch in (1, 2, 8):
        capacities = Capacities("cpu", max_batch)
        monkeypatch.setattr(capacity, "_memory", lambda *_: TensorMemoryOf(1))
        found[max_batch] = capacities.fit(generator, "float32", (), off_alone)[0].sizes

    assert found == {1: (2,), 2: (2,), 8: (2, 3, 4, 5, 6, 7, 8)}


class TensorMemoryOf(TensorMemory):
    """As if something had been measured."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.peak = self.largest = size


def test_what_a_network_holds_is_counted_once() -> None:
    shared = nn.Linear(10, 20, bias=False)
    tied = nn.Linear(10, 20, bias=False)
    tied.weight = shared.weight
    part = nn.Buffer(torch.zeros(1000)[:10])
    whole = nn.Module()
    whole.shared, whole.tied, whole.part = shared, tied, part

    assert held_bytes(whole) == (200 + 1000) * FLOAT


def test_larger_sizes_come_in_while_they_are_wanted() -> None:
    found = capacity.Capacity((1, 2), 100)
    found.extend(iter((3, 4, 5)), lambda: found.sizes[-1] < 4)

    assert found.sizes == (1, 2, 3, 4)
