"""How many processes train one job, and what a second hold on it may do."""

import threading
from pathlib import Path

import pytest

from app.core import jobs
from app.core.db import Database
from app.core.settings import Settings
from worker.training.launch import process_count


@pytest.mark.parametrize(
    ("gpus", "device", "wanted", "batch_size", "count"),
    [
        (0, "auto", 0, 8, 1),
        (0, "auto", 4, 8, 4),
        (0, "cpu", 3, 8, 2),  # 3 do not share 8 out evenly
        (8, "auto", 0, 64, 8),
        (8, "auto", 0, 8, 4),  # two pictures at least, for batch norm to compare
        (8, "cuda:3", 0, 64, 1),
        (8, "cpu", 0, 64, 1),
        (2, "cuda", 16, 64, 2),  # one a GPU
    ],
)
def test_as_many_processes_as_gpus_train_and_as_share_the_batch_out_evenly(
    gpus: int, device: str, wanted: int, batch_size: int, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert process_count(Settings(data=tmp_path, device=device, train_processes=wanted), batch_size) == count


def test_a_second_hold_on_a_job_publishes_only_while_its_epoch_is_the_jobs(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/ganvas.sqlite3")
    db.migrate()
    with db.begin() as session:
        job = jobs.submit(session, "train", {"name": "discs"}).id
    first = jobs.claim(db, job, threading.Event())
    assert first is not None
    assert jobs.join(db, job, first.epoch + 1, threading.Event()) is None
    second = jobs.join(db, job, first.epoch, threading.Event())
    assert second is not None
    second.report("log", {"message": "from the second"})
    first.give_back("For the test.")
    with pytest.raises(jobs.LeaseLost):
        second.report("log", {"message": "too late"})
    second.leave()
    first.release()
    with db.read() as session:
        assert jobs.find(session, job).status == "queued"
    db.close()
