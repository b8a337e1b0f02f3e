"""Checkpoints: a generator's weights as safetensors, with its configuration in the header, and nothing that can run.

The discriminator may lie beside it, under "discriminator.": trainings that start from this one, and the ranking of
pictures by how well they fit a text, take it. The file: 8 bytes of header length (little-endian), the header (JSON:
each tensor's dtype, shape and place, and our metadata under "ganvas"), then the tensors end to end. A file is checked
against its own header, and its header against the networks it names, before a tensor is read.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, TypeVar

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.config import NetworkConfig, TrainConfig
from models.errors import CheckpointInvalid
from models.networks.discriminator import Discriminator
from models.networks.generator import Generator
from models.registry import build_discriminator, build_generator
from models.text import VOCABULARY_WORDS

METADATA_KEY = "ganvas"
HEADER_MAX_BYTES = 1 << 21  # more than the longest words and labels fill
MOST_CAPTIONS = 512
LONGEST_CAPTION = 200  # characters, so that the header holds them all
DISCRIMINATOR = "discriminator."  # what the names of D's tensors begin with
LENGTH_BYTES = 8
SHOWN_CHARACTERS = 100  # of a name that somebody gave, in a message
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class CheckpointMeta(BaseModel):
    """What a checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = Field(1, description="Version of this layout.")
    kind: Literal["generator"] = Field("generator", description="What the weights are.")
    config: TrainConfig = Field(description="How it was trained, the shape of its networks included.")
    kimg: float = Field(ge=0, allow_inf_nan=False, description="Thousands of real images shown until then.")
    minutes: float = Field(ge=0, allow_inf_nan=False, description="Minutes of training until then.")
    dataset: str | None = Field(None, max_length=200, description="Name of the dataset.")
    labels: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (), max_length=VOCABULARY_WORDS, description="Labels it was trained with."
    )
    captioned: bool = Field(False, description="Whether it was trained with captions.")
    vocabulary: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        (), max_length=VOCABULARY_WORDS, description="Words of its captions and labels, the most frequent first."
    )
    license: str | None = Field(None, max_length=200, description="Licence of the weights.")
    captions: tuple[Annotated[str, Field(max_length=LONGEST_CAPTION)], ...] = Field(
        (), max_length=MOST_CAPTIONS, description="Some texts it was trained with, in random order: a seed picks one."
    )
    metrics: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="How good it was, by the name of the measure."
    )
    parents: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(
        (),
        max_length=2,
        exclude_if=lambda parents: not parents,
        description="sha256 of the checkpoints it was blended of.",
    )


class Entry(NamedTuple):
    """One tensor as the header describes it; `start` and `end` count from the end of the header, bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def save_checkpoint(
    path: Path | None,
    generator: Generator,
    meta: CheckpointMeta,
    dtype: torch.dtype = torch.float32,
    discriminator: Discriminator | None = None,
) -> bytes:
    """A checkpoint's bytes, written to `path` too where one is given (all of it or nothing)."""
    named = weights(generator)
    if discriminator is not None:
        named |= {DISCRIMINATOR + name: tensor for name, tensor in weights(discriminator).items()}
    tensors = {}
    for name, tensor in named.items():
        tensors[name] = tensor.detach().to("cpu", dtype).contiguous()
        _require_sound(name, tensors[name])
    data = safetensors.torch.save(tensors, metadata={METADATA_KEY: meta.model_dump_json()})
    if path is not None:
        _write(path, data)
    return data


def read_meta(data: bytes | memoryview | Path) -> CheckpointMeta:
    """What a checkpoint says of itself, after a check of its header, and without reading its tensors."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            head = _read_head(file)
            return _parse_header(head, data.stat().st_size)[0]
    if len(data) < LENGTH_BYTES:
        raise CheckpointInvalid(f"The file has {len(data)} bytes; a checkpoint has a header.")
    end = LENGTH_BYTES + _header_length(bytes(data[:LENGTH_BYTES]))
    return _parse_header(bytes(data[LENGTH_BYTES:end]), len(data))[0]


def check_checkpoint(path: Path) -> CheckpointMeta:
    """What anyone's checkpoint says of itself, once every tensor was found to be what its networks take, and finite.

    One tensor is in memory at a time, and none before its shape was found right. Raises CheckpointInvalid.
    """
    with path.open("rb") as file:
        header = _read_head(file)
        meta, entries = _parse_header(header, path.stat().st_size)
        with torch.device("meta"), _Unfilled():
            _require_fit(entries, _shapes(entries, meta.config.network))
        for name, entry in entries.items():
            _read_tensor(file, len(header), name, entry)
    return meta


def load_generator(path: Path, device: str | torch.device = "cpu") -> tuple[Generator, CheckpointMeta]:
    """G of a checkpoint in float32 and evaluation mode, and what the checkpoint says of itself.

    Raises CheckpointInvalid unless every name, shape and dtype is what the networks take, and every value is finite.
    """
    generator, meta = _load(path, build_generator, "", device)
    generator.captions = meta.captions
    return generator, meta


def holds_discriminator(path: Path) -> bool:
    """Whether a checkpoint was saved with its discriminator, by its header alone."""
    with path.open("rb") as file:
        _meta, entries = _parse_header(_read_head(file), path.stat().st_size)
    return any(name.startswith(DISCRIMINATOR) for name in entries)


def load_discriminator(path: Path, device: str | torch.device = "cpu") -> Discriminator:
    """D of a checkpoint in float32 and evaluation mode. Raises CheckpointInvalid, also where the file holds none."""
    discriminator, _meta = _load(path, build_discriminator, DISCRIMINATOR, device)
    return discriminator


Network = TypeVar("Network", bound=nn.Module)


def _load(
    path: Path, build: Callable[[NetworkConfig], Network], prefix: str, device: str | torch.device
) -> tuple[Network, CheckpointMeta]:
    """The network whose tensors' names begin with a prefix, after a check of every tensor of the file."""
    with path.open("rb") as file:
        header = _read_head(file)
        meta, entries = _parse_header(header, path.stat().st_size)
        with torch.device("meta"), _Unfilled():  # shapes without memory, and without a draw from the random state
            _require_fit(entries, _shapes(entries, meta.config.network))
            network = build(meta.config.network)
        mine = {name: entries.get(prefix + name) for name in weights(network)}
        if None in mine.values():
            raise CheckpointInvalid("The checkpoint holds no discriminator; it was saved without one.")
        tensors = {name: _read_tensor(file, len(header), prefix + name, entry) for name, entry in mine.items() if entry}
    state = {name: tensors.get(name, torch.zeros((), dtype=torch.int64)) for name in network.state_dict()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.requires_grad_(False).eval().to(device), meta


class _Unfilled(TorchFunctionMode):
    """Leaves out first weights, and what scales them: on the device "meta" torch imports its compiler for that, which
    takes seconds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "div"):
            return kwargs.get("tensor", *args[:1])
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """The tensors a checkpoint holds: all but batch norm's step counters, which no picture depends on."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def _shapes(entries: Mapping[str, Entry], config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """What the file must hold: all of G, and all of D where it holds any of it."""
    try:
        shapes = {name: tuple(tensor.shape) for name, tensor in weights(build_generator(config)).items()}
        if any(name.startswith(DISCRIMINATOR) for name in entries):
            discriminator = weights(build_discriminator(config))
            shapes |= {DISCRIMINATOR + name: tuple(tensor.shape) for name, tensor in discriminator.items()}
    except (ValueError, RuntimeError) as error:  # widths that each are possible, and together are not
        raise CheckpointInvalid(f"The networks it names cannot be built: {str(error)[:SHOWN_CHARACTERS]}") from error
    return shapes


def _write(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def _header_length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "little")
    if length > HEADER_MAX_BYTES:
        raise CheckpointInvalid(f"The header claims {length} bytes; a checkpoint's has at most {HEADER_MAX_BYTES}.")
    return length


def _read_head(file: BinaryIO) -> bytes:
    prefix = file.read(LENGTH_BYTES)
    if len(prefix) < LENGTH_BYTES:
        raise CheckpointInvalid(f"The file has {len(prefix)} bytes; a checkpoint has a header.")
    return file.read(_header_length(prefix))


def _parse_header(header: bytes, file_bytes: int) -> tuple[CheckpointMeta, dict[str, Entry]]:
    try:
        content = json.loads(header, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(
            f"The header is not JSON ({error}); this is not a checkpoint, or it is cut off."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("__metadata__"), dict):
        raise CheckpointInvalid("The header names no metadata; this is not a Ganvas checkpoint.")
    metadata = content.pop("__metadata__").get(METADATA_KEY)
    if not isinstance(metadata, str):
        raise CheckpointInvalid(
            "These are safetensors of another program; a Ganvas checkpoint says how it was trained."
        )
    try:
        meta = CheckpointMeta.model_validate_json(metadata)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:SHOWN_CHARACTERS]
        raise CheckpointInvalid(f"The checkpoint's metadata is not ours: {where}: {first['msg']}.") from error
    entries = {name: _entry(name, value) for name, value in content.items()}
    _require_layout(entries, file_bytes - LENGTH_BYTES - len(header))
    return meta, entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name stands twice")
    return content


def _entry(name: str, value: Any) -> Entry:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]} if len(value) == 3:
            if all(type(number) is int and 0 <= number < 2**48 for number in (*shape, start, end)):
                return Entry(dtype, tuple(shape), start, end)
    raise CheckpointInvalid(f"Tensor {name[:SHOWN_CHARACTERS]!r} is not described by its dtype, shape and place.")


def _require_layout(entries: Mapping[str, Entry], data_bytes: int) -> None:
    """The tensors must lie end to end, without a gap or an overlap, and end where the file ends."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.dtype not in DTYPES:
            said = f"Tensor {name[:SHOWN_CHARACTERS]!r} is {entry.dtype[:SHOWN_CHARACTERS]}"
            raise CheckpointInvalid(f"{said}; a checkpoint holds {', '.join(DTYPES)}.")
        size = math.prod(entry.shape) * DTYPES[entry.dtype].itemsize
        if entry.start != position or entry.end != position + size:
            said = f"Tensor {name[:SHOWN_CHARACTERS]!r} lies at {entry.start} to {entry.end}"
            raise CheckpointInvalid(f"{said}; it belongs at {position} to {position + size}.")
        position = entry.end
    if position != data_bytes:
        raise CheckpointInvalid(f"The file has {data_bytes} bytes of tensors; its header says {position}.")


def _require_fit(entries: Mapping[str, Entry], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name in sorted(entries.keys() ^ shapes.keys()):
        what = "missing" if name in shapes else "not part of this network"
        raise CheckpointInvalid(f"Tensor {name[:SHOWN_CHARACTERS]!r} is {what}.")
    for name, shape in shapes.items():
        if entries[name].shape != shape:
            raise CheckpointInvalid(f"Tensor {name!r} has shape {entries[name].shape[:8]}; this network takes {shape}.")


def _read_tensor(file: BinaryIO, header_bytes: int, name: str, entry: Entry) -> Tensor:
    file.seek(LENGTH_BYTES + header_bytes + entry.start)
    raw = np.frombuffer(bytearray(file.read(entry.end - entry.start)), dtype=np.uint8)
    tensor = torch.from_numpy(raw).view(DTYPES[entry.dtype]).reshape(entry.shape).to(torch.float32)
    _require_sound(name, tensor)
    return tensor


def _require_sound(name: str, tensor: Tensor) -> None:
    if not torch.isfinite(tensor).all():
        raise CheckpointInvalid(f"Tensor {name!r} holds NaN or infinity.")
    if name.endswith("running_var") and (tensor < 0).any():
        raise CheckpointInvalid(f"Tensor {name!r} holds a negative variance.")
