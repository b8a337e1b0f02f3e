"""What is published is whole: the best is promoted, evidence is kept, and two states are left to go on from."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.errors import CheckpointInvalid, NotFound
from app.core.records import Dataset, Job
from app.core.storage import Storage
from models.checkpoint import holds_discriminator, read_meta
from models.config import TrainConfig
from models.text import HashedEncoder
from worker.training.publish import Publisher
from worker.training.report import Concern, Snapshot, Tick
from worker.training.run import _saved_state
from worker.training.state import TrainingState
from worker.training.texts import Texts

GOOD = {"swd": 10.0, "coverage": 0.9, "coverage_floor": 1.0}


class Press:
    """A publisher over a real database and storage, and what came of what it published."""

    def __init__(self, folder: Path, config: TrainConfig, texts: Texts | None = None, **dataset: Any) -> None:
        self.db = Database(f"sqlite:///{folder}/ganvas.sqlite3")
        self.db.migrate()
        self.storage = Storage(folder / "blobs")
        self.config = config
        with self.db.begin() as session:
            row, _ = datasets.create(session, name="discs", source_sha256="0" * 64, request={})
            for name, value in dataset.items():
                setattr(row, name, value)
            job = jobs.submit(session, "train", {"name": "moss", "dataset": row.id})
        claim = jobs.claim(self.db, job.id, threading.Event())
        assert claim is not None
        self.claim = claim
        self.publisher = Publisher(self.storage, claim, config, self.row(row.id), texts)

    def row(self, dataset_id: str) -> Dataset:
        with self.db.read() as session:
            return datasets.find(session, dataset_id)

    def snapshot(self, kimg: float, metrics: dict[str, float]) -> str:
        """Publish one, and give the sha256 of its checkpoint."""
        state = TrainingState.start(self.config)
        state.images_seen = int(kimg * 1000)
        sheet = Image.new("RGB", (4, 4))
        self.publisher.snapshot(
            Snapshot(kimg, 1.0, sheet, state.generator_ema, state.discriminator, metrics, state.to_bytes)
        )
        checkpoint: str = self.events("snapshot")[-1]["checkpoint"]
        return checkpoint

    @property
    def promoted(self) -> str | None:
        with self.db.read() as session:
            return catalogue.find(session, "moss").promoted

    @property
    def job(self) -> Job:
        with self.db.read() as session:
            return jobs.find(session, self.claim.job_id)

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.db.read() as session:
            events = jobs.events_after(session, self.claim.job_id, 0)
        return [event.data for event in events if event.type == kind]

    def close(self) -> None:
        self.claim.release()
        self.db.close()


MakePress = Callable[..., Press]


@pytest.fixture
def press(tmp_path: Path, tiny_config: Callable[..., TrainConfig]) -> Iterator[MakePress]:
    made: list[Press] = []

    def make(config: TrainConfig | None = None, texts: Texts | None = None, **dataset: Any) -> Press:
        made.append(Press(tmp_path, config or tiny_config(), texts, **dataset))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_best_checkpoint_is_promoted_and_a_worse_one_only_kept(press: MakePress) -> None:
    office = press()
    first = office.snapshot(1, {})
    assert office.promoted == first  # a model is never without one
    good = office.snapshot(2, GOOD)
    assert office.promoted == good
    narrow = office.snapshot(3, GOOD | {"swd": 1.0, "coverage": 0.2})
    worse = office.snapshot(4, GOOD | {"swd": 30.0})
    office.snapshot(5, {})
    assert office.promoted == good
    better = office.snapshot(6, GOOD | {"swd": 5.0})
    assert office.promoted == better
    with office.db.read() as session:
        kept = [row.sha256 for row in catalogue.checkpoints(session, "moss")]
    assert {first, good, narrow, worse, better} < set(kept)
    assert len(kept) == 6


def test_what_the_artist_chose_stays_promoted(press: MakePress) -> None:
    office = press()
    chosen = office.snapshot(1, GOOD | {"swd": 99.0})
    with office.db.begin() as session:
        catalogue.promote(session, "moss", chosen[:12])
    office.snapshot(2, GOOD)
    assert office.promoted == chosen


def test_two_states_are_kept_and_older_ones_deleted(press: MakePress) -> None:
    office = press()
    states = []
    for kimg in (1, 2, 3, 4):
        office.snapshot(kimg, {})
        states.append(office.job.state_sha256)
    job = office.job
    assert (job.state_sha256, job.previous_state_sha256, job.state_kimg) == (states[3], states[2], 4)
    for old in states[:2]:
        assert old is not None
        with pytest.raises(NotFound):
            office.storage.path(old)
    for kept, kimg in ((states[3], 4.0), (states[2], 3.0)):
        assert kept is not None
        assert TrainingState.from_bytes(office.storage.get(kept)).kimg == kimg


def test_what_was_learnt_is_saved_before_the_last_snapshot_of_a_canceled_training(press: MakePress) -> None:
    office = press()
    office.snapshot(1, {})
    with office.db.begin() as session:
        jobs.cancel(session, office.claim.job_id)
    deadline = time.monotonic() + 10
    while not office.claim.canceled and time.monotonic() < deadline:
        time.sleep(0.05)
    state = TrainingState.start(office.config)
    state.images_seen = 2_000
    assert not office.publisher.stop(state)  # there is time for a snapshot too
    assert office.job.state_kimg == 2
    with office.db.begin() as session:  # a horse that dies in that
        jobs.holder_died(session, office.claim.job_id, office.claim.epoch)
        assert jobs.resume(session, office.claim.job_id).state_sha256
    assert TrainingState.from_bytes(office.storage.get(str(office.job.state_sha256))).kimg == 2


def test_a_state_that_a_branch_will_start_from_is_not_deleted(press: MakePress) -> None:
    office = press()
    office.snapshot(1, {})
    wanted = office.job.state_sha256
    assert wanted is not None
    with office.db.begin() as session:
        jobs.submit(session, "train", {"name": "fern", "dataset": "ds", "branch": wanted})
    for kimg in (2, 3, 4):
        office.snapshot(kimg, {})
    assert office.storage.path(wanted).exists()


def test_a_warning_carries_the_pictures_that_show_why(press: MakePress) -> None:
    office = press()
    evidence = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8))
    office.publisher.concern(Concern("copying", "Look at the pairs.", 2.5, evidence))
    office.publisher.concern(Concern("rolled_back", "Went back.", 3.0))
    first, second = office.events("warning")
    assert (first["kind"], first["message"], first["kimg"]) == ("copying", "Look at the pairs.", 2.5)
    with Image.open(office.storage.path(first["evidence_sha256"])) as stored:
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(evidence))
    assert first["evidence"] == f"/v1/jobs/{office.claim.job_id}/evidence/{first['evidence_sha256'][:12]}.png"
    assert second == {"kind": "rolled_back", "message": "Went back.", "kimg": 3.0}


def test_a_tick_is_the_jobs_progress(press: MakePress) -> None:
    office = press()
    office.publisher.tick(Tick(1.5, 2.0, 0.25, {"generator": 0.7}, 100.0, 10.0, 360.0, 1 << 20))
    assert (office.job.progress, office.job.eta_seconds) == (0.25, 360.0)
    assert office.job.message == "1.5 kimg at 10.0 s/kimg."
    assert office.events("tick")[0]["losses"] == {"generator": 0.7}


def test_a_checkpoint_tells_what_it_was_told_and_holds_its_discriminator(
    press: MakePress, tiny_config: Callable[..., TrainConfig], told: dict[str, Any], texts: Texts
) -> None:
    office = press(tiny_config(shape=told), texts, captions=32, labels=["disc"])
    path = office.storage.path(office.snapshot(1, GOOD))
    meta = read_meta(path)
    assert (meta.labels, meta.captioned, meta.dataset, meta.metrics) == (("disc",), True, "discs", GOOD)
    assert meta.vocabulary[:3] == ("disc", "a", "blue")
    assert holds_discriminator(path)
    with office.db.read() as session:
        model = catalogue.find(session, "moss")
    assert (model.encoder, tuple(model.vocabulary), model.labels) == ("hashed-256", meta.vocabulary, ["disc"])


def test_a_label_a_picture_does_not_make_a_checkpoint_that_cannot_be_read(
    press: MakePress, tiny_config: Callable[..., TrainConfig], told: dict[str, Any]
) -> None:
    labels = [f"{number} {'語' * 90}" for number in range(5_000)]
    office = press(tiny_config(shape=told), Texts.of([None] * 5_000, labels, HashedEncoder(256)), labels=labels)
    meta = read_meta(office.storage.path(office.snapshot(1, {})))
    assert meta.labels == tuple(labels[:2_000])
    assert all(len(word) <= 64 for word in meta.vocabulary)


@pytest.mark.parametrize(
    ("conditional", "dataset", "kind", "said"),
    [
        (True, {"captions": 32, "labels": ["disc"]}, "log", "Learns from 32 captions and 1 labels too"),
        (
            False,
            {"captions": 32, "labels": ["disc"]},
            "warning",
            "Learns without the dataset's 32 captions",
        ),
        (False, {}, "log", "no captions and no labels"),
    ],
)
def test_a_job_begins_by_saying_what_the_model_will_know_of_texts(
    conditional: bool,
    dataset: dict[str, Any],
    kind: str,
    said: str,
    press: MakePress,
    tiny_config: Callable[..., TrainConfig],
    told: dict[str, Any],
    texts: Texts,
) -> None:
    office = press(tiny_config(shape=told) if conditional else tiny_config(), texts if conditional else None, **dataset)
    office.publisher.begin()
    (event,) = office.events(kind)
    assert said in event["message"]


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif how == "gone":
        path.unlink()
    else:
        data[-5] ^= 1  # one bit of a weight
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut off", "gone", "one bit turned"])
def test_where_the_newest_state_cannot_be_read_the_one_before_goes_on_with_a_warning(
    how: str, press: MakePress
) -> None:
    office = press()
    for kimg in (1, 2):
        office.snapshot(kimg, {})
    newest, before = office.job.state_sha256, office.job.previous_state_sha256
    assert newest is not None
    assert before is not None
    assert _saved_state(office.storage, [newest, before], office.publisher).kimg == 2
    spoil(office.storage.path(newest), how)
    assert _saved_state(office.storage, [newest, before], office.publisher).kimg == 1
    (event,) = office.events("warning")
    assert f"The saved state {newest[:12]} cannot be read" in event["message"]
    assert event["message"].endswith("Went on from the one before it, at 1.0 kimg.")
    spoil(office.storage.path(before), how)
    with pytest.raises(CheckpointInvalid, match=f"{newest[:12]} cannot be read.*{before[:12]} cannot be read"):
        _saved_state(office.storage, [newest, before], office.publisher)
