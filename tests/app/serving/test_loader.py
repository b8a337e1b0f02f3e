"""Checkpoints come into memory once, stay within the budget, and leave nothing behind when they go."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor, nn

from app.core.errors import CheckpointInvalid, Damaged, NotFound
from app.core.storage import Storage
from app.serving.capacity import held_bytes
from app.serving.loader import Loader, watch
from app.serving.meters import Meters
from app.serving.paint import LoadedGenerator
from app.serving.recipe import Recipe
from models.config import TrainConfig
from models.presets import preset

MakeCheckpoint = Callable[..., str]
MakeRecipe = Callable[..., Recipe]
GIB = 2**30


def loader_of(storage: Storage, *, budget_bytes: int = GIB, max_batch: int = 8, meters: Meters | None = None) -> Loader:
    return Loader(storage.path, device="cpu", budget_bytes=budget_bytes, max_batch=max_batch, meters=meters)


def large_config() -> TrainConfig:
    """Weights of some megabytes, so that they show in what the process takes."""
    config = preset("classic", 32)
    widths = {"generator_widths": (512, 256, 64), "discriminator_widths": (16, 8, 8)}
    return config.model_copy(update={"network": config.network.model_copy(update=widths)})


def process_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def settle(loader: Loader) -> None:
    """Until what it does in the background is done."""
    loader._background.submit(lambda: None).result()


def test_concurrent_first_requests_read_the_file_once(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    sha256 = make_checkpoint()
    together, reads = Barrier(8), []

    def resolve(wanted: str) -> Path:
        reads.append(wanted)
        return storage.path(wanted)

    loader = Loader(resolve, device="cpu", budget_bytes=GIB, max_batch=4)

    def ask(_: int) -> LoadedGenerator:
        together.wait()
        return loader.get(sha256)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))

    assert reads == [sha256]
    assert all(answer is answers[0] for answer in answers)


def test_the_least_recently_used_leaves_when_memory_is_short(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    first, second, third = (make_checkpoint(seed) for seed in range(3))
    size = loader_of(storage).get(first).bytes
    meters = Meters()
    loader = loader_of(storage, budget_bytes=2 * size, meters=meters)

    loader.get(first)
    loader.get(second)
    loader.get(first)
    loader.get(third)

    assert loader.loaded(first) is not None
    assert loader.loaded(second) is None
    assert loader.loaded(third) is not None
    assert meters.registry.get_sample_value("ganvas_evictions_total", {"model": second[:12]}) == 1
    assert meters.registry.get_sample_value("ganvas_evictions_total", {"model": first[:12]}) is None
    assert loader.get(second).sha256 == second
    assert meters.registry.get_sample_value("ganvas_loads_total", {"model": second[:12]}) == 2
    assert meters.registry.get_sample_value("ganvas_load_seconds_count") == 4


def test_one_checkpoint_over_the_budget_is_still_served(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    loader = loader_of(storage, budget_bytes=1)
    first, second = make_checkpoint(0), make_checkpoint(1)

    assert loader.get(first) is loader.get(first)
    loader.get(second)
    assert loader.loaded(first) is None


def test_a_damaged_file_is_refused_and_a_whole_one_taken_later(
    storage: Storage, make_checkpoint: MakeCheckpoint
) -> None:
    sha256 = make_checkpoint()
    whole = storage.get(sha256)
    loader = loader_of(storage)

    storage.path(sha256).write_bytes(whole[:-100])
    with pytest.raises(Damaged, match=sha256[:12]):
        loader.get(sha256)

    assert storage.put(whole) == sha256
    assert loader.get(sha256).sha256 == sha256


def test_a_whole_file_that_is_no_checkpoint_is_refused(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    torn = storage.put(storage.get(make_checkpoint())[:-100])
    with pytest.raises(CheckpointInvalid, match=torn[:12]):
        loader_of(storage).get(torn)


def test_a_checkpoint_nobody_has_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound):
        loader_of(storage).get("0" * 64)


def test_each_dtype_is_a_generator_of_its_own(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint()
    single, half = loader.get(sha256), loader.get(sha256, "bfloat16")

    assert (single.runtime.dtype, half.runtime.dtype) == ("float32", "bfloat16")
    assert loader.get(sha256, "float32") is single
    assert loader.loaded(sha256, "bfloat16") is half
    assert loader.loads() == [single, half] or loader.loads() == [half, single]
    assert half.bytes < single.bytes


def test_what_a_generator_holds_is_what_the_process_takes_for_it(
    storage: Storage, make_checkpoint: MakeCheckpoint
) -> None:
    loader = loader_of(storage)
    checkpoints = [make_checkpoint(seed, config=large_config()) for seed in range(5)]
    loader.get(checkpoints.pop())  # libraries take some memory for good at first
    loader.unload(loader.loads()[0].sha256)
    settle(loader)

    before = process_bytes()
    generators = [loader.get(sha256).generator for sha256 in checkpoints]
    settle(loader)
    expected = sum(held_bytes(generator) for generator in generators)
    assert expected > 30 * 2**20
    assert process_bytes() - before == pytest.approx(expected, rel=0.15)

    del generators
    for sha256 in checkpoints:
        loader.unload(sha256)
    assert process_bytes() - before < 0.1 * expected


def test_a_generator_that_has_to_leave_is_freed_at_once(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    loader = loader_of(storage, budget_bytes=1)
    leaving = loader.get(make_checkpoint(0))
    settle(loader)
    network, weight = weakref.ref(leaving.generator), weakref.ref(next(leaving.generator.synthesis.parameters()))
    del leaving

    gc.disable()  # it is not found by a search for cycles some time later
    try:
        loader.get(make_checkpoint(1))
        assert network() is None
        assert weight() is None
    finally:
        gc.enable()


def test_a_generator_stays_for_as_long_as_a_pass_uses_it(
    storage: Storage, make_checkpoint: MakeCheckpoint, make_recipe: MakeRecipe
) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint()
    expected = loader.get(sha256).render([make_recipe(1)])
    inside, go_on = Event(), Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(30)

    def one_pass() -> Tensor:
        generator = loader.get(sha256)
        generator.generator.mapping.register_forward_hook(wait)
        return torch.from_numpy(generator.render([make_recipe(1)]))

    network = weakref.ref(loader.get(sha256).generator)
    with ThreadPoolExecutor(1) as thread:
        painted = thread.submit(one_pass)
        assert inside.wait(30)
        assert loader.unload(sha256)
        assert loader.loaded(sha256) is None
        assert network() is not None
        go_on.set()
        assert (painted.result().numpy() == expected).all()
        del painted
    settle(loader)
    assert network() is None


def test_the_judge_counts_and_others_make_room_for_it(
    storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: TrainConfig
) -> None:
    judged, other = (make_checkpoint(seed, config=prompted_config) for seed in range(2))
    both = loader_of(storage)
    budget = both.get(judged).bytes + both.get(other).bytes
    loader = loader_of(storage, budget_bytes=budget)
    loader.get(other)
    loader.judge(judged)

    assert loader.loaded(other) is None
    assert loader.loaded(judged) is not None


def test_unloading_what_is_not_there_is_no_error(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    loader = loader_of(storage)
    sha256 = make_checkpoint()
    loader.get(sha256)
    loader.get(sha256, "bfloat16")

    assert loader.unload(sha256)
    assert loader.loads() == []
    assert not loader.unload(sha256)


def test_every_tensor_is_aligned_as_torch_aligns_its_own(
    storage: Storage, make_checkpoint: MakeCheckpoint, prompted_config: TrainConfig
) -> None:
    generator = loader_of(storage).get(make_checkpoint(config=prompted_config)).generator

    assert all(tensor.data_ptr() % 64 == 0 for tensor in (*generator.parameters(), *generator.buffers()))


def test_a_second_checkpoint_of_a_network_is_not_measured_again(
    storage: Storage, make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[nn.Module] = []
    from app.serving import capacity

    record = capacity.record
    monkeypatch.setattr(capacity, "record", lambda network, *given: measured.append(network) or record(network, *given))
    loader = loader_of(storage)
    first, second = loader.get(make_checkpoint(0)), loader.get(make_checkpoint(1))
    loader.get(make_checkpoint(0), "bfloat16")

    assert len(measured) == 4  # mapping and synthesis, in two dtypes
    assert first.sizes == second.sizes


def test_reading_a_checkpoint_needs_no_compiler(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    """torch imports its own, and what that stands on, when it draws first weights on no device; that takes seconds."""
    checkpoints = [make_checkpoint(config=preset(name, 64)) for name in ("tiny", "few-shot", "quality")]
    script = (
        "import sys; from pathlib import Path; from app.serving.loader import Loader\n"
        "loader = Loader(Path, device='cpu', budget_bytes=2**30, max_batch=1)\n"
        "for path in sys.argv[1:]: loader.get(path)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'torch.onnx', 'sympy'} & set(sys.modules)))"
    )
    program = [sys.executable, "-c", script, *(str(storage.path(sha256)) for sha256 in checkpoints)]
    assert subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_metrics_show_what_is_held(storage: Storage, make_checkpoint: MakeCheckpoint) -> None:
    meters = Meters(CollectorRegistry())
    loader, idle = loader_of(storage, meters=meters), loader_of(storage)
    watch(meters, [loader, idle])
    first, second = (loader.get(make_checkpoint(seed)) for seed in range(2))
    read = meters.registry.get_sample_value

    assert read("ganvas_loaded_models") == 2
    assert read("ganvas_loaded_bytes", {"model": first.sha256[:12]}) == first.bytes
    loader.unload(second.sha256)
    assert read("ganvas_loaded_models") == 1
    assert read("ganvas_loaded_bytes", {"model": second.sha256[:12]}) is None
