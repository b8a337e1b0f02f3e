"""Directions of a tiny run are found, shown, carried over to its next checkpoint, and lost in one of another run."""

import copy
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from app.core import carrying, catalogue, directions, jobs, latents
from app.core.db import Database
from app.core.directions import Standing
from app.core.records import DirectionVector, Job
from app.core.storage import Storage
from models.checkpoint import CheckpointMeta, save_checkpoint
from models.config import NetworkConfig, TrainConfig
from models.latents.directions import sefa
from models.networks.generator import Generator
from models.presets import preset
from models.registry import build_generator
from worker import tasks
from worker.training.loop import train

SHAPE = {"generator_widths": (16, 8, 8, 4), "discriminator_widths": (16, 8, 8), "z_dim": 16, "w_dim": 16}
CONFIG = {"batch_size": 8, "total_kimg": 0.016, "seed": 1, "learning_rate": 2e-4, "final_learning_rate": 2e-4}
OFTEN = {"first_snapshot_minutes": 1e-6, "longest_snapshot_minutes": 1e-6}


@pytest.fixture(scope="module")
def run() -> dict[str, Generator]:
    """Two checkpoints of one tiny run, and one of a run that has nothing to do with it."""
    torch.set_num_threads(1)
    network = NetworkConfig(**(preset("tiny", 32).network.model_dump() | SHAPE))
    wish = preset("tiny", 32).model_dump() | CONFIG | OFTEN | {"max_minutes": None, "network": network}
    config = TrainConfig.model_validate(wish)
    pictures = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    taken: list[Generator] = []
    train(
        config,
        pictures,
        on_tick=lambda tick: None,
        on_snapshot=lambda snapshot: taken.append(copy.deepcopy(snapshot.generator)),
        should_stop=lambda: False,
        device="cpu",
    )
    with torch.random.fork_rng():
        torch.manual_seed(9)
        return {"early": taken[0], "late": taken[-1], "foreign": build_generator(network).eval()}


class Studio:
    """A model whose checkpoints are published one after the other, and the worker's part in it."""

    def __init__(self, folder: Path, run: dict[str, Generator]) -> None:
        self.db = Database(f"sqlite:///{folder}/ganvas.sqlite3")
        self.db.migrate()
        self.storage = Storage(folder / "blobs")
        self.run = run
        self.sha256: dict[str, str] = {}

    def publish(self, which: str) -> str:
        """Publish a checkpoint, as a training does; it is what the model means from then on."""
        generator, kimg = self.run[which], float(len(self.sha256))
        network = generator.config
        config = preset("tiny", 32).model_copy(update={"network": network})
        data = save_checkpoint(None, generator, CheckpointMeta(config=config, kimg=kimg, minutes=1))
        self.sha256[which] = self.storage.put(data)
        model = {"name": "discs", "job_id": "job_1", "architecture": "dcgan", "resolution": 32}
        model |= {"z_dim": network.z_dim, "w_dim": network.w_dim, "num_ws": network.num_ws}
        with self.db.begin() as session:
            catalogue.publish(session, model, sha256=self.sha256[which], kimg=kimg, bytes_=len(data), metrics={})
        return self.sha256[which]

    def find(self, checkpoint: str, method: str = "sefa", count: int = 4, layers: list[int] | None = None) -> Job:
        request: dict[str, Any] = {"kind": "directions", "model": "discs", "checkpoint": checkpoint}
        request |= {"method": method, "count": count, "layers": layers}
        with self.db.begin() as session:
            job = jobs.submit(session, "render", request).id
        return self.work(job)

    def carry(self, which: str) -> Job:
        """Do what was queued for the checkpoint when it was published."""
        with self.db.read() as session:
            waiting = [job for job in session.query(Job).filter_by(status="queued") if job.request.get("carry")]
        (job,) = [job.id for job in waiting if job.request["checkpoint"] == self.sha256[which]]
        return self.work(job)

    def work(self, job_id: str) -> Job:
        tasks.render(job_id)
        with self.db.read() as session:
            return jobs.find(session, job_id)

    def standings(self, which: str) -> dict[str, Standing]:
        with self.db.read() as session:
            return directions.standings(session, "discs", self.sha256[which])

    def vectors(self, name: str) -> dict[str, DirectionVector]:
        with self.db.read() as session:
            row = directions.find(session, "discs", name)
            return {vector.checkpoint: vector for vector in directions.vectors(session, row)}

    def numbers(self, sha256: str | None) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        assert sha256 is not None
        found = latents.read(self.storage.get(sha256), 4, 16)
        assert found is not None
        return found


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: dict[str, Generator]) -> Iterator[Studio]:
    monkeypatch.setenv("GANVAS_DATA", str(tmp_path))
    monkeypatch.setenv("GANVAS_THREADS", "1")
    monkeypatch.setattr(tasks, "interrupted", threading.Event())
    made = Studio(tmp_path, run)
    yield made
    made.db.close()


def test_found_directions_are_stored_as_one_standard_deviation_of_what_the_method_says(
    studio: Studio, run: dict[str, Generator]
) -> None:
    early = studio.publish("early")
    job = studio.find(early, count=3)
    assert (job.status, job.result and job.result["directions"]) == ("succeeded", ["sefa-0", "sefa-1", "sefa-2"])
    expected = sefa(run["early"], 3)
    for rank, standing in enumerate(studio.standings("early").values()):
        step = expected.sigma[rank] * expected.vectors[rank]
        assert np.allclose(studio.numbers(standing.offset), np.tile(step, (4, 1)), atol=1e-6)
    vector = studio.vectors("sefa-1")[early]
    assert vector.share == pytest.approx(float(expected.share[1]), rel=1e-4)
    assert (vector.score, vector.carried_from) == (None, None)


def test_the_jobs_file_is_a_sheet_of_strips_whose_middle_is_the_picture_itself(studio: Studio) -> None:
    job = studio.find(studio.publish("early"), "pca", count=2)
    assert job.result is not None
    picture = Image.open(io.BytesIO(studio.storage.get(job.result["file"])))
    assert job.result["size"] == f"{picture.width}x{picture.height}"
    assert job.preview_sha256 is not None
    pixels = np.asarray(picture.convert("RGB"))
    height = 32 + 2
    first, second = pixels[-2 * height : -height], pixels[-height:]
    middle = slice(-3 * (32 + 2), -2 * (32 + 2))
    assert np.array_equal(first[:32, middle], second[:32, middle])
    assert not np.array_equal(first[:32], second[:32])


def test_directions_of_some_layers_leave_the_others_alone(studio: Studio) -> None:
    early = studio.publish("early")
    studio.find(early, "pca", count=1, layers=[1, 2])
    step = studio.numbers(studio.standings("early")["pca-0"].offset)
    assert np.any(step[[1, 2]], axis=1).all()
    assert not step[[0, 3]].any()


def test_named_directions_are_carried_over_when_the_run_publishes_its_next_checkpoint(studio: Studio) -> None:
    early = studio.publish("early")
    studio.find(early)
    with studio.db.begin() as session:
        row = directions.rename(session, studio.storage, directions.find(session, "discs", "sefa-1"), "rust")
        directions.rescale(session, studio.storage, row, 2.0)
    late = studio.publish("late")
    assert {standing.state for standing in studio.standings("late").values()} == {"waiting"}
    job = studio.carry("late")
    assert (job.status, job.result and job.result["lost"]) == ("succeeded", {})
    assert {standing.state for standing in studio.standings("late").values()} == {"carried"}
    rust = studio.vectors("rust")
    assert (rust[late].carried_from, rust[late].share) == (early, None)
    assert 0.3 < (rust[late].score or 0) <= 1
    then, now = (studio.numbers(rust[checkpoint].offset_sha256).ravel() for checkpoint in (early, late))
    assert np.dot(then, now) / np.linalg.norm(then) / np.linalg.norm(now) > 0.9
    assert np.allclose(now, 2 * studio.numbers(rust[late].vector_sha256).ravel())


def test_in_weights_of_another_run_a_direction_is_lost_and_says_so(studio: Studio) -> None:
    studio.find(studio.publish("early"))
    foreign = studio.publish("foreign")
    job = studio.carry("foreign")
    assert job.result is not None
    assert job.result["lost"]
    for name, score in job.result["lost"].items():
        assert score < 0.3
        assert studio.standings("foreign")[name] == Standing("lost", None)
        assert studio.vectors(name)[foreign].vector_sha256 is None
        assert name in job.message
    for name in job.result["carried"]:
        assert studio.standings("foreign")[name].state == "carried"


def test_a_training_without_directions_queues_nothing(studio: Studio) -> None:
    studio.publish("early")
    studio.publish("late")
    with studio.db.read() as session:
        assert session.query(Job).count() == 0


def test_what_is_found_in_an_older_checkpoint_is_carried_to_what_the_model_means(studio: Studio) -> None:
    early = studio.publish("early")
    studio.publish("late")
    studio.find(early, count=2)
    assert studio.carry("late").status == "succeeded"
    with studio.db.begin() as session:
        assert carrying.want(session, "discs", studio.sha256["late"]) is None
        assert carrying.want(session, "discs", early) is None


def test_an_artist_who_promotes_an_older_checkpoint_gets_the_directions_there_too(studio: Studio) -> None:
    early = studio.publish("early")
    studio.find(studio.publish("late"), count=2)
    with studio.db.begin() as session:
        catalogue.promote(session, "discs", early[:12])
        catalogue.promote(session, "discs", early[:12])  # asked for twice, carried once
    assert studio.carry("early").status == "succeeded"


def test_a_direction_is_carried_from_the_nearest_checkpoint_that_has_it(studio: Studio) -> None:
    early = studio.publish("early")
    studio.find(early, count=1)
    late = studio.publish("late")
    studio.carry("late")
    studio.run = studio.run | {"latest": copy.deepcopy(studio.run["late"])}
    with torch.no_grad():
        next(studio.run["latest"].synthesis.parameters()).mul_(1.001)
    latest = studio.publish("latest")
    studio.carry("latest")
    assert studio.vectors("sefa-0")[latest].carried_from == late


def test_a_model_that_was_deleted_meanwhile_ends_the_job_with_the_reason(studio: Studio) -> None:
    early = studio.publish("early")
    with studio.db.begin() as session:
        catalogue.delete(session, "discs")
    job = studio.find(early)
    assert (job.status, job.error and job.error["code"]) == ("failed", "model_not_found")


def test_a_canceled_search_leaves_the_model_as_it_was(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    early = studio.publish("early")
    monkeypatch.setattr(jobs.Claim, "should_stop", lambda claim: True)
    monkeypatch.setattr(jobs.Claim, "canceled", property(lambda claim: True))
    assert studio.find(early).status == "canceled"
    assert studio.standings("early") == {}
