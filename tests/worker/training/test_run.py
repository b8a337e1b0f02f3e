"""A whole job without a queue: from a claimed row to checkpoints, events and the report."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.core import catalogue, datasets, jobs
from app.core.db import Database
from app.core.storage import Storage
from models.config import TrainConfig
from worker.training.run import Ending, train_and_publish


def run(folder: Path, config: TrainConfig, images: np.ndarray) -> tuple[Ending | None, Database, Storage, str]:
    db = Database(f"sqlite:///{folder / 'ganvas.sqlite3'}")
    db.migrate()
    storage = Storage(folder / "blobs")
    np.save(folder / "images.npy", images)
    with db.begin() as session:
        dataset, _ = datasets.create(session, name="discs", source_sha256="0" * 64, request={})
        dataset.status, dataset.count = "ready", len(images)
        dataset.array_sha256 = storage.put(folder / "images.npy")
        request = {"dataset": dataset.id, "name": "moss", "config": config.model_dump(mode="json")}
        job_id = jobs.submit(session, "train", request).id
    claim = jobs.claim(db, job_id, threading.Event())
    assert claim is not None
    ending = train_and_publish(db, storage, claim, device="cpu")
    claim.release()
    return ending, db, storage, job_id


def test_a_job_that_used_up_its_budget_ends_with_a_report_of_what_its_events_told(
    tmp_path: Path, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    config = tiny_config(total_kimg=0.2)
    ending, db, storage, job_id = run(tmp_path, config, np.concatenate([pictures, pictures[:, ::-1]]))
    assert ending is not None
    assert ending.result["model"] == "moss"
    assert ending.result["report"] == f"/v1/jobs/{job_id}/report"
    told = json.loads(storage.get(ending.result["report_json_sha256"]))
    with db.read() as session:
        events = jobs.events_after(session, job_id, 0)
        (row,) = catalogue.checkpoints(session, "moss")
    (snapshot,) = [event.data for event in events if event.type == "snapshot"]
    assert snapshot["checkpoint"] == row.sha256
    assert {name: told["growth"][0][name] for name in ("kimg", "swd", "coverage")} == {
        "kimg": 0.2,
        "swd": row.metrics["swd"],
        "coverage": row.metrics["coverage"],
    }
    assert told["config"]["total_kimg"] == 0.2
    assert told["copying_can_be_told"]  # 80 pictures: twenty were held out
    page = storage.get(ending.result["report_sha256"]).decode()
    assert "moss: tiny, 0.2 kimg" in page
    assert page.count("data:image/png;base64,") >= 2
    db.close()


@pytest.mark.parametrize("held_out", [True, False])
def test_copying_can_be_told_only_where_pictures_were_held_out(
    held_out: bool, tmp_path: Path, tiny_config: Callable[..., TrainConfig], pictures: np.ndarray
) -> None:
    images = np.concatenate([pictures, pictures[:, ::-1]])
    ending, db, storage, _ = run(tmp_path, tiny_config(holdout=held_out), images)
    assert ending is not None
    assert json.loads(storage.get(ending.result["report_json_sha256"]))["copying_can_be_told"] is held_out
    db.close()
