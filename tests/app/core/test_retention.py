"""What the settings keep for some days is forgotten after them, with the blobs that nothing else names."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.core import jobs, retention
from app.core.db import Database
from app.core.errors import NotFound
from app.core.records import Artwork, Checkpoint, Job, JobEvent, Model, new_id, utc_now
from app.core.settings import Settings
from app.core.storage import Storage


class Shelf:
    """A database and storage with things of some age."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder, keep_samples_days=7, keep_events_days=7, keep_files_days=7)
        self.db = Database(self.settings.database)
        self.db.migrate()
        self.storage = Storage(folder / "blobs")

    def job(self, kind: jobs.Kind, days: float, **values: Any) -> str:
        """A job that ended so many days ago."""
        with self.db.begin() as session:
            job = jobs.submit(session, kind, {})
            jobs.tell(session, job.id, "tick", {"kimg": 1.0})
            job.status, job.finished_at = "succeeded", utc_now() - timedelta(days=days)
            for name, value in values.items():
                setattr(job, name, value)
            return job.id

    def checkpoint(self, job: str, sheet: str, kimg: float) -> None:
        with self.db.begin() as session:
            if session.get(Model, "moss") is None:
                session.add(
                    Model(name="moss", architecture="dcgan", resolution=32, z_dim=8, w_dim=8, num_ws=1, job_id=job)
                )
                session.flush()
            row = {"sha256": f"{kimg:064.0f}", "kimg": kimg, "bytes": 1, "sheet_sha256": sheet}
            session.add(Checkpoint(model_name="moss", job_id=job, **row))

    def keep(self, file: str) -> None:
        with self.db.begin() as session:
            about = {"kind": "film", "model": "moss", "checkpoint": "0" * 64, "recipe": {}, "recipe_hash": "0" * 64}
            size = {"media_type": "video/mp4", "width": 1, "height": 1, "bytes": 1}
            session.add(Artwork(id=new_id("art"), file_sha256=file, **about, **size))

    def has(self, sha256: str) -> bool:
        try:
            self.storage.get(sha256)
        except NotFound:
            return False
        return True

    def sweep(self, **settings: int) -> dict[str, int]:
        return retention.sweep(self.settings.model_copy(update=settings), self.db, self.storage)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path)
    yield made
    made.db.close()


def test_sheets_of_trainings_that_ended_long_ago_go_and_the_checkpoints_stay(shelf: Shelf) -> None:
    old, young, both = (shelf.storage.put(name) for name in (b"old", b"young", b"both"))
    ended, new = shelf.job("train", days=8), shelf.job("train", days=6)
    shelf.checkpoint(ended, old, 1)
    shelf.checkpoint(ended, both, 2)
    shelf.checkpoint(new, young, 3)
    shelf.checkpoint(new, both, 4)
    assert shelf.sweep(keep_events_days=0) == {"samples": 2}
    assert (shelf.has(old), shelf.has(young), shelf.has(both)) == (False, True, True)
    with shelf.db.read() as session:
        assert session.query(Checkpoint).count() == 4
    assert shelf.sweep(keep_events_days=0) == {}


def test_ticks_go_and_what_tells_the_story_of_the_job_stays(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SWEPT_AT_ONCE", 1)
    old = [shelf.job("train", days=8), shelf.job("render", days=9)]
    young = shelf.job("train", days=6)
    assert shelf.sweep() == {"events": 2}
    with shelf.db.read() as session:
        left = {(row.job_id, row.type) for row in session.query(JobEvent)}
    assert left == {(job, "status") for job in [*old, young]} | {(young, "tick")}


def test_drawn_files_go_unless_they_were_kept(shelf: Shelf) -> None:
    loose, kept, young = (shelf.storage.put(name) for name in (b"loose", b"kept", b"young"))
    old = shelf.job("render", days=8, result={"file": loose, "url": "/v1/renders/x/file", "recipe": {"seed": 1}})
    shelf.job("render", days=8, result={"file": kept})
    shelf.job("render", days=6, result={"file": young})
    shelf.keep(kept)
    assert shelf.sweep(keep_events_days=0) == {"files": 1}
    assert (shelf.has(loose), shelf.has(kept), shelf.has(young)) == (False, True, True)
    with shelf.db.read() as session:
        row = session.get_one(Job, old)
        assert (row.result, row.message) == (
            {"recipe": {"seed": 1}},
            "Its file was not kept and is gone; its recipe draws it again.",
        )


def test_a_part_that_a_canceled_drawing_would_go_on_behind_is_kept(shelf: Shelf) -> None:
    part = shelf.storage.put(b"part")
    shelf.job("render", days=8, status="canceled", parts=[part])
    shelf.job("render", days=8, result={"file": shelf.storage.put(b"file")}, parts=[part])
    assert shelf.sweep(keep_events_days=0) == {"files": 1}
    assert shelf.has(part)


def test_a_setting_of_zero_keeps_for_ever(shelf: Shelf) -> None:
    shelf.job("render", days=10_000, result={"file": shelf.storage.put(b"old")})
    assert shelf.sweep(keep_samples_days=0, keep_events_days=0, keep_files_days=0) == {}
