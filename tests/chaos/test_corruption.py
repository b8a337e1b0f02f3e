"""Files that were damaged are never loaded: drawing and training say so, and go on from the newest that is whole."""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.api import directory
from app.core import datasets, jobs
from app.core.db import Database
from app.core.errors import CheckpointInvalid
from app.core.storage import Storage
from models.presets import preset
from tests.chaos.conftest import Figures
from tests.conftest import RunningApp
from worker.training.publish import Publisher
from worker.training.run import _saved_state
from worker.training.state import TrainingState

LENGTH_BYTES = 8  # safetensors: the header's length comes first, little-endian


def flipped(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """One bit, anywhere."""
    bit = chance.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def truncated(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """Cut off, anywhere."""
    return data[: chance.randrange(len(data))]


def zeroed(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """A piece of zeros, as a disk leaves it whose power went."""
    start = chance.randrange(len(data) - 512)
    return data[:start] + bytes(512) + data[start + 512 :]


def swapped(_data: bytes, other: bytes, _chance: random.Random) -> bytes:
    """Another file, whole, in its place."""
    return other


def header_edited(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """A header that says other shapes, other places, other numbers, or another training, all of it well-formed."""
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])
    names = sorted(name for name in header if name != "__metadata__")
    entry, metadata = header[chance.choice(names)], header["__metadata__"]
    match chance.randrange(4):
        case 0:
            entry["shape"] = [1, *entry["shape"]]
        case 1:
            entry["data_offsets"] = [offset + 4 for offset in entry["data_offsets"]]
        case 2:
            entry["dtype"] = "F16" if entry["dtype"] == "F32" else "F32"
        case _:
            key = sorted(metadata)[0]
            metadata[key] = metadata[key].replace("1", "2", 1)
    edited = json.dumps(header).encode()
    return len(edited).to_bytes(LENGTH_BYTES, "little") + edited + data[LENGTH_BYTES + length :]


DAMAGES = (flipped, truncated, zeroed, swapped, header_edited)


def damage(file: Path, other: bytes, chance: random.Random, number: int) -> None:
    """Damage a file in one of the ways, the next one each time."""
    whole = damaged = file.read_bytes()
    while damaged == whole:  # zeros may be zeros already
        damaged = DAMAGES[number % len(DAMAGES)](whole, other, chance)
    file.write_bytes(damaged)


def test_a_damaged_checkpoint_is_never_drawn_and_the_newest_whole_one_is(
    app: RunningApp, rounds: Callable[[int, int], int], figures: Figures, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, chance, loaded = rounds(15, 150), random.Random(6), 0
    monkeypatch.setattr(directory, "REMEMBERED_SECONDS", 0.0)
    with app.client() as client:
        for number in range(count):
            name = f"damaged-{number}"
            before = app.publish(name, seed=2 * number, kimg=1)
            newest = app.publish(name, seed=2 * number + 1, kimg=2)
            if number % 2:  # one that this process has in memory, and has seen whole
                assert client.get(f"/v1/models/{name}/image", params={"seed": 0}).status_code == 200
            damage(app.storage.path(newest), app.storage.get(before), chance, number)
            client.post(f"/v1/models/{name}@{newest}/unload")
            pinned = client.get(f"/v1/models/{name}@{newest}/image", params={"seed": 1})
            drawn = client.get(f"/v1/models/{name}/image", params={"seed": 1})
            loaded += pinned.status_code == 200 or shown(drawn) != before
            assert (pinned.status_code, pinned.json()["error"]["code"]) == (503, "blob_damaged"), (number, pinned.text)
            assert "no longer holds what was written" in pinned.json()["detail"]
    figures.add(
        f"{count} damaged checkpoints: {loaded} loaded, each with an error, the newest whole one drawn instead."
    )
    assert loaded == 0


def shown(answer: Any) -> str:
    """The checkpoint that drew a picture."""
    assert answer.status_code == 200, answer.text
    checkpoint: str = json.loads(answer.headers["x-ganvas-recipe"])["checkpoint"]
    return checkpoint


def test_a_damaged_state_is_never_trained_on_and_the_newest_whole_one_is(
    tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    count, chance, loaded = rounds(15, 150), random.Random(6), 0
    db, storage = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3"), Storage(tmp_path / "blobs")
    db.migrate()
    config = preset("tiny", 32)
    with db.begin() as session:
        dataset, _ = datasets.create(session, name="art", source_sha256="0" * 64, request={})
        job = jobs.submit(session, "train", {"name": "art", "dataset": dataset.id})
    claim = jobs.claim(db, job.id, threading.Event())
    assert claim is not None
    publisher = Publisher(storage, claim, config, dataset, None)
    state = TrainingState.start(config)
    for number in range(count):
        states = []
        for kimg in (2 * number + 1, 2 * number + 2):
            state.images_seen = 1000 * kimg
            states.insert(0, storage.put(state.to_bytes()))
        newest, before = states
        damage(storage.path(newest), storage.get(before), chance, number)
        loaded += _saved_state(storage, states, publisher).kimg != 2 * number + 1
        with pytest.raises(
            CheckpointInvalid, match=f"{newest[:12]} cannot be read: .*no longer holds what was written"
        ):
            _saved_state(storage, [newest], publisher)
        storage.delete(newest)
        storage.delete(before)
    with db.read() as session:
        warnings = [event for event in jobs.events_after(session, job.id, 0, 1_000) if event.type == "warning"]
    claim.leave()
    db.close()
    figures.add(f"{count} damaged states: {loaded} loaded, each with an error, the newest whole one gone on from.")
    assert loaded == 0
    assert len(warnings) == count
