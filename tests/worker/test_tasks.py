"""A task turns a claimed row into its result, or into the reason why there is none."""

import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.records import Dataset, Job
from app.core.storage import Storage
from models.presets import preset
from worker import tasks
from worker.training.state import TrainingState


class Workplace:
    """A database and a storage in the folder that the tasks will find by GANVAS_DATA."""

    def __init__(self, folder: Path) -> None:
        self.db = Database(f"sqlite:///{folder}/ganvas.sqlite3")
        self.db.migrate()
        self.storage = Storage(folder / "blobs")

    def dataset(self, files: dict[str, bytes], **request: object) -> tuple[str, str]:
        """A dataset that waits to be prepared, and its job."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        source = self.storage.put(buffer.getvalue())
        with self.db.begin() as session:
            row, job = datasets.create(session, name="d", source_sha256=source, request={"resolution": 32, **request})
        return row.id, job.id

    def job(self, job_id: str) -> Job:
        with self.db.read() as session:
            return jobs.find(session, job_id)

    def row(self, dataset_id: str) -> Dataset:
        with self.db.read() as session:
            return datasets.find(session, dataset_id)


@pytest.fixture
def workplace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Workplace]:
    monkeypatch.setenv("GANVAS_DATA", str(tmp_path))
    monkeypatch.setenv("GANVAS_THREADS", "1")
    monkeypatch.setattr(tasks, "interrupted", threading.Event())
    made = Workplace(tmp_path)
    yield made
    made.db.close()


def discs(count: int) -> dict[str, bytes]:
    files = {}
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (index * 7 % 256, index * 13 % 256, 128)).save(buffer, "PNG")
        files[f"{index}.png"] = buffer.getvalue()
    return files


def test_a_prepared_dataset_is_ready_with_its_counts(workplace: Workplace) -> None:
    dataset, job = workplace.dataset(discs(12) | {"notes.pdf": b"%PDF"})
    tasks.prepare(job)
    row = workplace.row(dataset)
    assert (row.status, row.count, row.sent, sum(row.verdicts.values())) == ("ready", 12, 13, 13)
    assert row.array_sha256 is not None
    assert workplace.storage.path(row.array_sha256).exists()
    assert workplace.job(job).status == "succeeded"


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "dataset_empty"),
        (discs(1), "dataset_too_small"),
        ({f"{n}.png": b"torn" for n in range(10)}, "dataset_empty"),
    ],
    ids=["nothing", "one picture", "ten corrupt pictures"],
)
def test_too_little_artwork_fails_with_the_reason_and_every_verdict(
    workplace: Workplace, files: dict[str, bytes], code: str
) -> None:
    dataset, job = workplace.dataset(files)
    tasks.prepare(job)
    row, ended = workplace.row(dataset), workplace.job(job)
    assert (row.status, ended.status) == ("failed", "failed")
    assert row.error is not None
    assert row.error["code"] == code
    assert row.error["message"] == ended.message
    assert sum(row.verdicts.values()) == row.sent == len(files)


def test_a_training_publishes_checkpoints_that_grow_and_ends_with_its_budget(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    config = preset("tiny", 32, total_kimg=0.2, batch_size=16)
    request = {"dataset": dataset, "name": "discs", "config": config.model_dump(mode="json")}
    with workplace.db.begin() as session:
        job = jobs.submit(session, "train", request).id
    tasks.train(job)
    assert workplace.job(job).status == "succeeded"
    with workplace.db.read() as session:
        found = catalogue.resolve(session, "discs")
        events = [event.type for event in jobs.events_after(session, job, 0)]
    assert found.checkpoint.kimg == pytest.approx(0.208)  # the first whole batch at or past the budget
    assert events[-2:] == ["snapshot", "status"]
    assert "tick" in events


def test_a_training_that_diverges_fails_with_what_to_do(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    config = preset("tiny", 32, total_kimg=1, batch_size=16)
    state = TrainingState.start(config)
    next(state.generator.parameters()).data.fill_(float("nan"))
    request = {"dataset": dataset, "name": "wild", "config": config.model_dump(mode="json")}
    with workplace.db.begin() as session:
        row = jobs.submit(session, "train", request)
        job, row.state_sha256 = row.id, workplace.storage.put(state.to_bytes())
    tasks.train(job)
    ended = workplace.job(job)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "training_diverged"
    assert "lower learning_rate" in ended.message


def test_a_delivery_of_a_job_that_ended_does_nothing(workplace: Workplace) -> None:
    _dataset, job = workplace.dataset(discs(12))
    tasks.prepare(job)
    attempts = workplace.job(job).attempts
    tasks.prepare(job)
    assert workplace.job(job).attempts == attempts


def test_a_job_interrupted_before_its_work_goes_back_to_the_queue(workplace: Workplace) -> None:
    dataset, job = workplace.dataset(discs(12))
    tasks.interrupted.set()
    tasks.prepare(job)
    assert (workplace.job(job).status, workplace.row(dataset).status) == ("queued", "preparing")
