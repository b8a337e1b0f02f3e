"""A task turns a claimed row into its result, or into the reason why there is none."""

import errno
import io
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sqlalchemy import select

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.errors import StorageFull
from app.core.records import Checkpoint, Dataset, Job
from app.core.storage import Storage
from models.checkpoint import holds_discriminator, load_generator
from models.config import TextConfig, TrainConfig
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


def small(**changes: Any) -> TrainConfig:
    """Three steps of networks of a few thousand weights."""
    shape = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8)} | changes.pop("shape", {})
    network = preset("tiny", 32).network.model_copy(update=shape)
    config = preset("tiny", 32, total_kimg=0.024, batch_size=8, **changes).model_copy(update={"network": network})
    return TrainConfig.model_validate(config.model_dump())


def trained(workplace: Workplace, dataset: str, name: str, config: TrainConfig, **request: Any) -> Job:
    """The job that trained a model, as it ended."""
    asked = {"dataset": dataset, "name": name, "config": config.model_dump(mode="json"), **request}
    with workplace.db.begin() as session:
        job = jobs.submit(session, "train", asked).id
    tasks.train(job)
    return workplace.job(job)


def warnings(workplace: Workplace, job: Job) -> list[str]:
    with workplace.db.read() as session:
        events = jobs.events_after(session, job.id, 0)
    return [event.data["message"] for event in events if event.type == "warning"]


def test_captions_and_labels_of_a_dataset_reach_the_model(workplace: Workplace) -> None:
    colours = ["red", "blue", "grün"]
    captions = {f"{n}.txt": f"a {colours[n % 3]} disc".encode() for n in range(10)}
    dataset, preparing = workplace.dataset(discs(12) | captions)
    tasks.prepare(preparing)
    job = trained(workplace, dataset, "told", small(shape={"text": TextConfig(encoder="hashed-256", features=256)}))
    assert job.status == "succeeded"
    with workplace.db.read() as session:
        found = catalogue.resolve(session, "told")
    assert found.model.encoder == "hashed-256"
    assert set(found.model.vocabulary) == {"a", "disc", *colours}
    generator, meta = load_generator(workplace.storage.path(found.checkpoint.sha256))
    assert (meta.captioned, generator.text is not None) == (True, True)
    assert holds_discriminator(workplace.storage.path(found.checkpoint.sha256))


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (TextConfig(encoder="sentence:not-here", features=384), "encoder_unavailable", "sentence:not-here|not-here"),
        (TextConfig(encoder="hashed-256", features=512), "config_does_not_fit", "Set network.text.features to 256"),
    ],
)
def test_a_text_encoder_that_cannot_be_used_fails_the_job_with_the_reason(
    text: TextConfig, code: str, said: str, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    job = trained(workplace, dataset, "told", small(shape={"text": text}))
    assert (job.status, (job.error or {})["code"]) == ("failed", code)
    assert re.search(said, job.message)


def test_a_branch_goes_on_from_what_another_training_saved(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    first = trained(workplace, dataset, "first", small())
    slow = small(learning_rate=1e-9, final_learning_rate=1e-9, seed=3)
    branch = trained(workplace, dataset, "second", slow, branch=first.state_sha256)
    assert branch.status == "succeeded"
    before, after = (TrainingState.from_bytes(workplace.storage.get(job.state_sha256 or "")) for job in (first, branch))
    assert after.images_seen == 24
    for ours, theirs in zip(before.generator.parameters(), after.generator.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=0)  # next to no learning rate: what was learnt stays
    refused = trained(workplace, dataset, "third", small(shape={"w_dim": 64}), branch=first.state_sha256)
    assert (refused.status, (refused.error or {})["code"]) == ("failed", "config_does_not_fit")


def test_a_base_is_where_another_training_starts_and_what_does_not_fit_is_said(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    trained(workplace, dataset, "first", small())
    slow = {"learning_rate": 1e-9, "final_learning_rate": 1e-9, "seed": 5, "ema_halflife_kimg": 0.0}
    second = trained(workplace, dataset, "second", small(**slow), base="first")
    assert (second.status, warnings(workplace, second)) == ("succeeded", [])
    with workplace.db.read() as session:
        found = [catalogue.resolve(session, name).checkpoint.sha256 for name in ("first", "second")]
    generators = [load_generator(workplace.storage.path(sha256))[0] for sha256 in found]
    for ours, theirs in zip(*(generator.parameters() for generator in generators), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=0)
    wider = trained(workplace, dataset, "third", small(shape={"generator_widths": (16, 8, 8, 8)}, **slow), base="first")
    assert wider.status == "succeeded"
    (said,) = warnings(workplace, wider)
    assert "generator.synthesis.paint.weight: the base's is 3x4x3x3, this one's 3x8x3x3." in said
    stranger = small(
        shape={"architecture": "r3gan", "discriminator_widths": (16, 8, 8, 8), "w_dim": 16, "group_size": 4}
    )
    refused = trained(workplace, dataset, "fourth", stranger, base="first")
    assert (refused.status, (refused.error or {})["code"]) == ("failed", "base_does_not_fit")


def test_a_training_whose_newest_state_is_damaged_goes_on_from_the_one_before(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    state = TrainingState.start(small())
    request = {"dataset": dataset, "name": "hurt", "config": state.config.model_dump(mode="json")}
    with workplace.db.begin() as session:
        row = jobs.submit(session, "train", request)
        row.previous_state_sha256 = workplace.storage.put(state.to_bytes())
        row.state_sha256 = workplace.storage.put(b"not a state")
        job = row.id
    tasks.train(job)
    ended = workplace.job(job)
    assert ended.status == "succeeded"
    (said,) = warnings(workplace, ended)
    assert "Went on from the one before it, at 0.0 kimg" in said


def test_a_job_is_not_begun_without_room_and_says_why(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    _dataset, job = workplace.dataset(discs(12))
    monkeypatch.setenv("GANVAS_FREE_SPACE_FLOOR_MIB", str(10**9))
    monkeypatch.setattr(tasks, "ROOM_SECONDS", 0.01)
    tasks.prepare(job)
    assert (workplace.job(job).status, workplace.job(job).attempts) == ("queued", 0)
    assert "MiB free" in workplace.job(job).message


def test_a_disk_that_is_full_for_a_while_costs_a_training_nothing_but_time(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    put, refused = Storage.put, []

    def put_with_luck(storage: Storage, data: bytes | Path) -> str:
        if len(refused) < 4:
            refused.append(1)
            raise StorageFull("The disk is full.") if len(refused) % 2 else OSError(errno.ENOSPC, "No space left")
        return put(storage, data)

    monkeypatch.setattr(jobs, "ROOM_SECONDS", 0.01)
    monkeypatch.setattr(Storage, "put", put_with_luck)
    job = trained(workplace, dataset, "patient", small())
    assert (job.status, job.attempts, len(refused)) == ("succeeded", 1, 4)
    assert any("Waiting for room" in said for said in warnings(workplace, job))


def test_a_training_killed_while_its_report_was_written_still_gets_one(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("worker.training.run.publish_report", die)
        trained(workplace, dataset, "late", small())
    with workplace.db.begin() as session:
        job_id = session.scalars(select(Job.id).where(Job.kind == "train")).one()
        jobs.holder_died(session, job_id, 1)
    tasks.train(job_id)
    ended = workplace.job(job_id)
    assert (ended.status, ended.attempts) == ("succeeded", 2)
    assert ended.result is not None
    assert ended.result["report"] == f"/v1/jobs/{job_id}/report"


def test_a_training_whose_numbers_break_before_it_has_a_model_does_not_succeed_without_one(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)

    def break_down(state: TrainingState, *_: object) -> dict[str, torch.Tensor]:
        state.images_seen += 8
        return {"generator": torch.tensor(float("nan"))}

    monkeypatch.setattr("worker.training.loop.train_step", break_down)
    brief = small().model_copy(update={"total_kimg": None, "max_minutes": 1e-6})
    job = trained(workplace, dataset, "wild", brief)
    assert (job.status, (job.error or {})["code"]) == ("failed", "training_diverged")


def test_a_training_that_is_told_to_leave_saves_its_last_step_and_shows_nothing(workplace: Workplace) -> None:
    dataset, preparing = workplace.dataset(discs(12))
    tasks.prepare(preparing)
    config = small(first_snapshot_minutes=60).model_copy(update={"total_kimg": 1e6})
    leaving = threading.Timer(2.0, tasks.interrupted.set)
    leaving.start()
    job = trained(workplace, dataset, "brief", config)
    assert (job.status, job.fruitless, job.epoch) == ("queued", 0, 2)
    with workplace.db.read() as session:
        events = jobs.events_after(session, job.id, 0)
        assert session.scalars(select(Checkpoint)).all() == []
    last_tick = [event.data["kimg"] for event in events if event.type == "tick"][-1]
    assert job.state_kimg == last_tick > 0
    assert job.state_sha256 is not None
    saved = TrainingState.from_bytes(workplace.storage.get(job.state_sha256))
    assert saved.kimg == last_tick


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
