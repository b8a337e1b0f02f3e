"""Files of weights that are programs, lie about themselves or fit no networks, by name."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import torch

from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig
from models.presets import preset
from models.registry import build_generator

Named = Iterator[tuple[str, bytes]]
Header = dict[str, Any]
META = "__metadata__"


def sound() -> bytes:
    """A checkpoint of 32 pixels."""
    network = NetworkConfig(
        resolution=32,
        z_dim=8,
        w_dim=8,
        mapping_layers=1,
        generator_widths=(8, 8, 4, 4),
        discriminator_widths=(8, 8, 8),
        generator_norm="none",
    )
    meta = CheckpointMeta(config=preset("tiny", 32).model_copy(update={"network": network}), kimg=1.0, minutes=0.1)
    return save_checkpoint(None, build_generator(network), meta)


class Program:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.canary, "w"))


def pickles(canary: str) -> Named:
    """Programs in all the clothes that weights have come in."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"a pickle of protocol {protocol}", pickle.dumps(Program(canary), protocol)
    place = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "run": Program(canary)}, place)
    yield "what torch.save writes", place.getvalue()
    place = io.BytesIO()
    torch.save({"weight": torch.zeros(2), "run": Program(canary)}, place, _use_new_zipfile_serialization=False)
    yield "what torch.save wrote of old", place.getvalue()
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Program(canary)))
        archive.writestr("archive/version", "3")
    yield "a pickle in a zip", place.getvalue()


def changed(file: bytes, change: Callable[[Header], object]) -> bytes:
    """The same tensors under another header."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    written = json.dumps(change(header) or header).encode()
    return struct.pack("<Q", len(written)) + written + file[8 + length :]


def first(header: Header) -> Header:
    """One tensor's description."""
    found: Header = next(entry for name, entry in header.items() if name != META)
    return found


def told(header: Header, **changes: Any) -> None:
    """Let the metadata say something else."""
    header[META]["ganvas"] = json.dumps(json.loads(header[META]["ganvas"]) | changes)


def shaped(header: Header, **changes: Any) -> None:
    """Let the metadata name other networks."""
    config = json.loads(header[META]["ganvas"])["config"]
    told(header, config=config | {"network": config["network"] | changes})


def lying() -> Named:
    """Headers that are none, or say what is not so."""
    file = sound()
    length = int.from_bytes(file[:8], "little")
    for claimed in (2**63, 2**64 - 1, 100 * 2**20, 2**21 + 1, length + 1, length - 1, 0, 1):
        yield f"a header of {claimed} bytes", struct.pack("<Q", claimed) + file[8:]
    for share in (0, 1, 7, 8, 20, 8 + length, len(file) - 1):
        yield f"cut off after {share} bytes", file[:share]
    yield "more behind its end", file + b"\0"
    for text in ("", "null", "[]", "{}", '{"a":1}', "[" * 9_000, '{"a":' * 3_000, '{"__metadata__":NaN}', "\ufeff{}"):
        written = text.encode()
        yield f"the header {text[:12]!r}", struct.pack("<Q", len(written)) + written
    yield "a header of 50,000 tensors", changed(file, lambda _: {str(number): 0 for number in range(50_000)})
    numbers: list[Any] = [-1, 2**63, 1e400, float("nan"), "8", None, True, [8], 1.5]
    for number in numbers:
        yield f"a shape of {number!r}", changed(file, lambda header, n=number: first(header).update(shape=[n, 8]))
        places = {"data_offsets": [0, number]}
        yield f"a place of {number!r}", changed(file, lambda header, p=places: first(header).update(p))
    yield "tensors in one another", changed(file, lambda header: first(header).update(data_offsets=[4, 8]))
    for dtype in ("F64", "I64", "BOOL", "F8_E4M3", "U8", "", "pickle"):
        yield f"the numbers {dtype!r}", changed(file, lambda header, d=dtype: first(header).update(dtype=d))
    yield "one tensor less", changed(file, lambda header: header.pop(next(name for name in header if name != META)))
    yield (
        "a tensor called otherwise",
        changed(
            file,
            lambda header: header.update({"../../weight": header.pop(next(name for name in header if name != META))}),
        ),
    )


def misfits() -> Named:
    """Sound headers of networks that the tensors are not of, or that nobody can build; and numbers that are none."""
    file = sound()
    shapes: list[dict[str, Any]] = [
        {"resolution": 64},
        {"resolution": 2**20},
        {"resolution": 512, "generator_widths": [1024] * 8, "discriminator_widths": [1024] * 7},
        {"z_dim": 1024},
        {"z_dim": -1},
        {"architecture": "r3gan", "discriminator_widths": [8] * 4, "group_size": 7},
        {"architecture": "os.system"},
        {"generator_widths": []},
        {"mapping_layers": 10**9},
        {"text": {"encoder": "../../etc/passwd", "features": 65_536, "dim": 1024}},
        {"text": {"features": 2**40}},
    ]
    for shape in shapes:
        name = " and ".join(shape)
        yield f"networks of another {name}", changed(file, lambda header, s=shape: shaped(header, **s))
    for field, value in (
        ("kimg", -1),
        ("kimg", float("nan")),
        ("format", 2),
        ("kind", "discriminator"),
        ("labels", ["x" * 300]),
        ("vocabulary", ["a"] * 100_000),
        ("parents", ["../" * 20]),
        ("metrics", {"swd": float("inf")}),
        ("license", 7),
        ("run", "os.system('id')"),
    ):
        yield f"metadata whose {field} is {value!r:.20}", changed(file, lambda h, f=field, v=value: told(h, **{f: v}))
    yield "metadata of another program", changed(file, lambda header: header.update({META: {"format": "pt"}}))
    for value in (float("nan"), float("inf"), float("-inf")):
        yield f"a weight that is {value}", file[:-4] + struct.pack("<f", value)
    yield "an ONNX", b"\x08\x07\x12\x07pytorch" + bytes(200)
    yield "an HDF5", b"\x89HDF\r\n\x1a\n" + bytes(200)
    yield "a GGUF", b"GGUF\3\0\0\0" + bytes(200)
    yield "a picture", b"\x89PNG\r\n\x1a\n" + bytes(200)
    yield "an ELF program", b"\x7fELF" + bytes(200)
