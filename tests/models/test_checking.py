"""Anyone's checkpoints, checked before they are kept: damage anywhere is told in words, and costs no memory."""

import json
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.checkpoint import CheckpointMeta, check_checkpoint, save_checkpoint
from models.config import NetworkConfig
from models.errors import CheckpointInvalid
from models.presets import preset
from models.registry import build_discriminator, build_generator

HEADERS = 1500  # that are damaged
Header = dict[str, Any]


def network(**changes: Any) -> NetworkConfig:
    """Of 32 pixels, with a mapping network."""
    shape = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "generator_norm": "none"}
    widths = {"generator_widths": (8, 8, 4, 4), "discriminator_widths": (8, 8, 8)}
    return NetworkConfig.model_validate({"resolution": 32} | shape | widths | changes)


@pytest.fixture(scope="module")
def file() -> bytes:
    """A checkpoint with its discriminator."""
    shape = network()
    meta = CheckpointMeta(config=preset("tiny", 32).model_copy(update={"network": shape}), kimg=1.0, minutes=0.1)
    return save_checkpoint(None, build_generator(shape), meta, discriminator=build_discriminator(shape))


def with_header(file: bytes, change: Callable[[Header], None]) -> bytes:
    """The same tensors under another header."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    change(header)
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + file[8 + length :]


def told(place: Path, file: bytes) -> str:
    """What is said against a file."""
    place.write_bytes(file)
    with pytest.raises(CheckpointInvalid) as refused:
        check_checkpoint(place)
    assert len(str(refused.value)) < 500
    return str(refused.value)


def test_a_sound_file_says_what_it_is(tmp_path: Path, file: bytes) -> None:
    (tmp_path / "file").write_bytes(file)
    assert check_checkpoint(tmp_path / "file").config.network == network()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_found_in_any_tensor(tmp_path: Path, file: bytes, value: float) -> None:
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            spoiled = bytearray(file)
            struct.pack_into("<f", spoiled, 8 + length + entry["data_offsets"][1] - 4, value)
            assert name in told(tmp_path / "file", bytes(spoiled))


def test_networks_that_cannot_be_built_are_refused(tmp_path: Path, file: bytes) -> None:
    impossible = network(
        architecture="r3gan", generator_widths=(8,) * 4, discriminator_widths=(8,) * 4, group_size=7
    ).model_dump()

    def change(header: Header) -> None:
        meta = json.loads(header["__metadata__"]["ganvas"])
        meta["config"]["network"] = impossible
        header["__metadata__"]["ganvas"] = json.dumps(meta)

    assert "cannot be built" in told(tmp_path / "file", with_header(file, change))


def test_the_largest_networks_are_not_made_for_a_file_that_only_names_them(tmp_path: Path, file: bytes) -> None:
    giant = network(
        resolution=512,
        z_dim=1024,
        w_dim=1024,
        generator_widths=(1024,) * 8,
        discriminator_widths=(1024,) * 7,
        text={"features": 65_536, "dim": 1024},
    ).model_dump()

    def change(header: Header) -> None:
        meta = json.loads(header["__metadata__"]["ganvas"])
        meta["config"]["network"] = giant
        header["__metadata__"]["ganvas"] = json.dumps(meta)

    tracemalloc.start()
    told(tmp_path / "file", with_header(file, change))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**25


def test_names_of_a_megabyte_are_not_repeated_whole(tmp_path: Path, file: bytes) -> None:
    def rename(header: Header) -> None:
        name = next(name for name in header if name != "__metadata__")
        header["x" * 10**6] = header.pop(name)

    def field(header: Header) -> None:
        header["__metadata__"]["ganvas"] = json.dumps({"y" * 10**6: 1})

    for change in (rename, field):
        told(tmp_path / "file", with_header(file, change))


def test_damage_anywhere_in_the_header_is_refused_or_harmless(tmp_path: Path, file: bytes) -> None:
    place = tmp_path / "file"
    length = int.from_bytes(file[:8], "little")
    chance = random.Random(0)
    refused = 0
    for _ in range(HEADERS):
        damaged = bytearray(file)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(8 + length)] = chance.randrange(256)
        place.write_bytes(damaged)
        try:
            check_checkpoint(place)
        except CheckpointInvalid:
            refused += 1
    assert refused > HEADERS / 2


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, file: bytes) -> None:
    for share in range(40):
        told(tmp_path / "file", file[: len(file) * share // 40])
