import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from models.checkpoint import (
    CheckpointMeta,
    holds_discriminator,
    load_discriminator,
    load_generator,
    read_meta,
    save_checkpoint,
)
from models.config import TextConfig, TrainConfig
from models.errors import CheckpointInvalid
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from models.registry import build_discriminator
from models.sampling import render


@pytest.fixture
def meta(small_config: Callable[..., TrainConfig]) -> CheckpointMeta:
    return CheckpointMeta(config=small_config(), kimg=1.5, minutes=2.5, dataset="leaves", metrics={"swd": 20.5})


@pytest.fixture
def good(tmp_path: Path, small_generator: Generator, meta: CheckpointMeta) -> Path:
    path = tmp_path / "good.safetensors"
    save_checkpoint(path, small_generator, meta)
    return path


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def rewrite(path: Path, header: dict[str, Any] | bytes, tensors: bytes) -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(content).to_bytes(8, "little") + content + tensors)


def refused(path: Path, *, by_header: bool = True) -> str:
    """The complaint about a file; what its header alone gives away, read_meta must refuse too."""
    if by_header:
        for data in (path, path.read_bytes()):
            with pytest.raises(CheckpointInvalid):
                read_meta(data)
    with pytest.raises(CheckpointInvalid) as complaint:
        load_generator(path)
    return str(complaint.value)


def test_a_loaded_generator_paints_what_the_saved_one_painted(
    good: Path, small_generator: Generator, meta: CheckpointMeta
) -> None:
    loaded, loaded_meta = load_generator(good)
    assert loaded_meta == meta == read_meta(good) == read_meta(memoryview(good.read_bytes()))
    assert not loaded.training
    np.testing.assert_array_equal(render(loaded, range(8), psi=0.7), render(small_generator, range(8), psi=0.7))


def test_loading_leaves_the_random_state_alone(good: Path) -> None:
    before = torch.get_rng_state()
    load_generator(good)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_file_is_safetensors_to_everyone_else(good: Path, small_generator: Generator) -> None:
    tensors = safetensors.torch.load_file(good)
    name = "synthesis.start.weight"
    assert torch.equal(tensors[name], small_generator.get_parameter(name))


def test_the_same_weights_give_the_same_bytes(good: Path, small_generator: Generator, meta: CheckpointMeta) -> None:
    assert save_checkpoint(None, small_generator, meta) == good.read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file_and_loads_as_float32(
    tmp_path: Path, good: Path, small_generator: Generator, meta: CheckpointMeta, dtype: torch.dtype
) -> None:
    path = tmp_path / "half.safetensors"
    save_checkpoint(path, small_generator, meta, dtype)
    assert len(parts(path)[1]) * 2 == len(parts(good)[1])
    loaded, _ = load_generator(path)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    difference = render(loaded, range(8)).astype(int) - render(small_generator, range(8))
    assert np.abs(difference).mean() < (1 if dtype == torch.float16 else 4)


def test_saving_leaves_no_temporary_file_behind(good: Path) -> None:
    assert list(good.parent.iterdir()) == [good]


def test_a_generator_that_is_not_finite_is_not_saved(
    tmp_path: Path, small_generator: Generator, meta: CheckpointMeta
) -> None:
    small_generator.w_avg[0] = 1e6
    with pytest.raises(CheckpointInvalid, match=r"'w_avg' holds NaN or infinity"):  # beyond float16
        save_checkpoint(tmp_path / "x.safetensors", small_generator, meta, torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_anywhere_is_refused(good: Path) -> None:
    data = good.read_bytes()
    header_end = 8 + int.from_bytes(data[:8], "little")
    for length in (0, 1, 7, 8, 9, header_end - 1, header_end, header_end + 1, len(data) - 1):
        good.write_bytes(data[:length])
        refused(good)


def test_a_file_with_something_after_its_tensors_is_refused(good: Path) -> None:
    good.write_bytes(good.read_bytes() + b"\0")
    assert "its header says" in refused(good)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**21 + 1])
def test_a_header_of_absurd_length_is_refused_before_it_is_read(good: Path, length: int) -> None:
    good.write_bytes(length.to_bytes(8, "little") + good.read_bytes()[8:])
    assert f"claims {length} bytes" in refused(good)


def test_a_pickle_under_our_name_is_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "bomb.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path)
    torch.save({"w": Bomb()}, path)
    refused(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"nonsense",
        b"\xff\xfe{}",
        b"[]",
        b"{}",
        b"[" * 200_000,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"__metadata__": 3}',
        b'{"__metadata__": {}}',
        b'{"__metadata__": {"ganvas": 1}}',
        b'{"__metadata__": {"ganvas": "{}"}}',
    ],
)
def test_a_header_that_is_not_ours_is_refused(good: Path, header: bytes) -> None:
    rewrite(good, header, parts(good)[1])
    refused(good)


def test_a_name_that_stands_twice_is_refused(good: Path) -> None:
    header, tensors = parts(good)
    twice = json.dumps(header)[:-1] + ', "w_avg": ' + json.dumps(header["w_avg"]) + "}"
    rewrite(good, twice.encode(), tensors)
    assert "a name stands twice" in refused(good)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("kind", "discriminator"),
        ("kimg", -1),
        ("surprise", 1),
        ("metrics", {"swd": "NaN"}),
        ("parents", ["../x"]),
        ("parents", ["a" * 64] * 3),
    ],
)
def test_metadata_of_another_kind_is_refused_by_field(good: Path, field: str, value: object) -> None:
    header, tensors = parts(good)
    ours = json.loads(header["__metadata__"]["ganvas"]) | {field: value}
    header["__metadata__"]["ganvas"] = json.dumps(ours)
    rewrite(good, header, tensors)
    assert field in refused(good)


def test_parents_are_named_and_where_there_are_none_the_header_is_as_it_was_before_there_were_any(
    good: Path, small_generator: Generator, meta: CheckpointMeta
) -> None:
    assert "parents" not in json.loads(parts(good)[0]["__metadata__"]["ganvas"])
    assert read_meta(good).parents == ()
    blended = meta.model_copy(update={"parents": ("a" * 64, "0" * 64)})
    save_checkpoint(good, small_generator, blended)
    assert load_generator(good)[1] == read_meta(good) == blended


def test_tensors_that_overlap_or_leave_a_gap_are_refused(good: Path) -> None:
    header, tensors = parts(good)
    names = sorted((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    first, second = header[names[0]]["data_offsets"], header[names[1]]["data_offsets"]
    for shift in (-4, 4):
        header[names[1]]["data_offsets"] = [second[0] + shift, second[1] + shift]
        rewrite(good, header, tensors)
        assert "belongs at" in refused(good)
    header[names[1]]["data_offsets"] = first
    rewrite(good, header, tensors)
    assert "belongs at" in refused(good)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 32]},
        {"dtype": "F32", "shape": [-8], "data_offsets": [0, 32]},
        {"dtype": "F32", "shape": [8.0], "data_offsets": [0, 32]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": 8, "data_offsets": [0, 32]},
        {"dtype": "F32", "shape": [8], "data_offsets": [32, 0]},
        {"dtype": "F32", "shape": [8], "data_offsets": [0]},
        {"dtype": 4, "shape": [8], "data_offsets": [0, 32]},
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 32], "run": "me"},
        {"dtype": "F64", "shape": [4], "data_offsets": [0, 32]},
        {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]},
        "w_avg",
    ],
)
def test_a_tensor_described_impossibly_is_refused(good: Path, entry: object) -> None:
    header, tensors = parts(good)
    header["w_avg"] = entry
    rewrite(good, header, tensors)
    assert "w_avg" in refused(good) or "belongs at" in refused(good)


def resave(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """The same file with other tensors, laid out correctly."""
    metadata = parts(path)[0]["__metadata__"]
    tensors = safetensors.torch.load(path.read_bytes())
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata=metadata))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("w_avg"), "'w_avg' is missing"),
        (lambda t: t.update(extra=torch.zeros(2)), "'extra' is not part of this network"),
        (lambda t: t.update(w_avg=torch.zeros(9)), r"shape (9,); this network takes (8,)"),
        (lambda t: t.update(w_avg=torch.zeros(2, 4)), r"shape (2, 4)"),
        (lambda t: t.update(w_avg=torch.zeros(8, dtype=torch.float64)), "is F64; a checkpoint holds F32, F16, BF16"),
        (lambda t: t["w_avg"].__setitem__(3, float("nan")), "'w_avg' holds NaN or infinity"),
        (lambda t: t["w_avg"].__setitem__(3, float("-inf")), "'w_avg' holds NaN or infinity"),
        (lambda t: t["synthesis.norms.0.norm.running_var"].neg_(), "holds a negative variance"),
    ],
)
def test_weights_that_do_not_fit_the_networks_they_name_are_refused(
    good: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    resave(good, change)
    assert complaint in refused(good, by_header="F64" in complaint)


def test_networks_of_another_size_than_the_tensors_are_refused_before_they_are_built(good: Path) -> None:
    header, tensors = parts(good)
    ours = json.loads(header["__metadata__"]["ganvas"])
    ours["config"]["network"]["generator_widths"] = [1024, 1024, 1024, 1024]
    header["__metadata__"]["ganvas"] = json.dumps(ours)
    rewrite(good, header, tensors)
    assert "this network takes" in refused(good, by_header=False)


@pytest.fixture
def judge(small_config: Callable[..., TrainConfig], text_config: TextConfig) -> Discriminator:
    """D of a prompted generator, with a norm that has seen pictures."""
    network = small_config().network.model_copy(update={"text": text_config, "discriminator_norm": "batch"})
    discriminator = build_discriminator(network)
    with torch.no_grad():
        discriminator(torch.randn(16, 3, 32, 32))
    return discriminator


@pytest.fixture
def judged(
    tmp_path: Path,
    small_config: Callable[..., TrainConfig],
    prompted_generator: Generator,
    judge: Discriminator,
) -> Path:
    config = small_config(network=judge.config.model_dump())
    path = tmp_path / "judged.safetensors"
    words = ("red", "cat", "щенок")
    meta = CheckpointMeta(config=config, kimg=1, minutes=1, labels=("cat",), captioned=True, vocabulary=words)
    save_checkpoint(path, prompted_generator, meta, discriminator=judge)
    return path


def test_a_checkpoint_may_hold_its_discriminator_which_judges_as_the_saved_one(
    judged: Path, judge: Discriminator, prompted_generator: Generator
) -> None:
    assert holds_discriminator(judged)
    loaded = load_discriminator(judged)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    x, texts = torch.rand(5, 3, 32, 32), torch.randn(5, 6)
    with torch.no_grad():
        ours, theirs = judge.eval()(x), loaded(x)
        assert torch.equal(theirs.given(texts), ours.given(texts))
        assert torch.equal(theirs.match(texts), ours.match(texts))
    generator, meta = load_generator(judged)
    assert (meta.labels, meta.captioned, meta.vocabulary) == (("cat",), True, ("red", "cat", "щенок"))
    prompts = ["red cat"] * 4
    expected = render(prompted_generator, range(4), prompts=prompts)
    np.testing.assert_array_equal(render(generator, range(4), prompts=prompts), expected)


def test_every_tensor_of_both_networks_is_in_the_file_and_comes_back_equal(
    judged: Path, judge: Discriminator, prompted_generator: Generator
) -> None:
    generator, discriminator = load_generator(judged)[0], load_discriminator(judged)
    for saved, loaded in ((prompted_generator, generator), (judge, discriminator)):
        ours, theirs = saved.state_dict(), loaded.state_dict()
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(theirs[name], tensor), name


def test_a_checkpoint_without_a_discriminator_says_so(good: Path) -> None:
    assert not holds_discriminator(good)
    with pytest.raises(CheckpointInvalid, match="holds no discriminator"):
        load_discriminator(good)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.pop("discriminator.compare.weight"), "'discriminator.compare.weight' is missing"),
        (lambda t: t.update({"discriminator.x": torch.zeros(1)}), "'discriminator.x' is not part of this network"),
        (lambda t: t.update({"discriminator.compare.weight": torch.zeros(6, 9)}), "shape (6, 9); this network takes"),
        (lambda t: t.pop("text.weight"), "'text.weight' is missing"),
    ],
)
def test_half_a_discriminator_is_refused_whichever_network_is_wanted(
    judged: Path, change: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    resave(judged, change)
    assert complaint in refused(judged, by_header=False)
    with pytest.raises(CheckpointInvalid) as found:
        load_discriminator(judged)
    assert complaint in str(found.value)


def test_a_discriminator_that_is_not_finite_is_refused(judged: Path) -> None:
    resave(judged, lambda t: t["discriminator.compare.weight"].view(-1)[3:4].fill_(float("nan")))
    with pytest.raises(CheckpointInvalid, match=r"'discriminator\.compare\.weight' holds NaN"):
        load_discriminator(judged)


def test_the_longest_words_and_labels_there_can_be_fit_the_header(
    tmp_path: Path, prompted_generator: Generator, judged: Path
) -> None:
    said = {"vocabulary": tuple(f"{n:04}" + "𠜎" * 60 for n in range(2000)), "labels": tuple(["𠜎" * 100] * 2000)}
    meta = CheckpointMeta.model_validate(read_meta(judged).model_dump() | said)
    save_checkpoint(tmp_path / "wordy.safetensors", prompted_generator, meta)
    assert load_generator(tmp_path / "wordy.safetensors")[1] == meta
