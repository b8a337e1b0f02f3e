"""The doctor finds what is wrong with a studio, says so, and repairs what can be repaired without guessing."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from app.core import blobs, catalogue, datasets, jobs
from app.core.db import Database
from app.core.doctor import machine
from app.core.doctor.examination import examine
from app.core.doctor.finding import Finding
from app.core.errors import NotFound
from app.core.records import Checkpoint, Dataset, Job, JobEvent, utc_now
from app.core.settings import Settings
from app.core.storage import STALE_SECONDS, Storage

Publish = Callable[..., str]


class Patient:
    """A studio that can be made ill."""

    def __init__(self, folder: Path, before: str, newest: str) -> None:
        self.settings = Settings(data=folder)
        self.db, self.storage = Database(self.settings.database), Storage(folder / "blobs")
        self.before, self.newest = before, newest

    def examine(self, *, repair: bool = False) -> list[Finding]:
        """Everything that is not well, and not the Redis that nobody started."""
        found = list(examine(self.settings, repair=repair))
        assert len({finding.about for finding in found}) >= 10
        return [finding for finding in found if finding.state not in {"well", "note"}]

    def states(self, *, repair: bool = False) -> dict[str, str]:
        return {finding.about: finding.state for finding in self.examine(repair=repair)}

    def spoil(self, sha256: str) -> None:
        """One bit of a blob turns."""
        file = self.storage.path(sha256)
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    def age(self, file: Path) -> None:
        long_ago = time.time() - STALE_SECONDS - 60
        os.utime(file, (long_ago, long_ago))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Publish) -> tuple[Path, str, str]:
    """A studio with a model of two checkpoints, and these."""
    folder = tmp_path_factory.mktemp("healthy")
    db, storage = Database(Settings(data=folder).database), Storage(folder / "blobs")
    db.migrate()
    before = publish_tiny(db, storage, "moss", seed=1, kimg=1)
    newest = publish_tiny(db, storage, "moss", seed=2, kimg=2, sheet=b"sheet")
    db.close()
    return folder, before, newest


@pytest.fixture
def patient(tmp_path: Path, healthy: tuple[Path, str, str]) -> Iterator[Patient]:
    folder, *checkpoints = healthy
    shutil.copytree(folder, tmp_path / "data")
    made = Patient(tmp_path / "data", *checkpoints)
    yield made
    made.db.close()


def test_a_studio_that_is_well_is_told_so(patient: Patient) -> None:
    assert patient.examine() == []


def test_where_there_is_no_studio_that_is_all_there_is_to_say(tmp_path: Path) -> None:
    (found,) = examine(Settings(data=tmp_path / "nowhere"), repair=True)
    assert (found.state, found.about) == ("wrong", "database")
    assert not (tmp_path / "nowhere").exists()


def test_a_lost_checkpoint_is_told_by_name_and_the_newest_whole_one_is_meant_after_a_repair(patient: Patient) -> None:
    patient.spoil(patient.newest)
    told = [finding.message for finding in patient.examine()]
    assert any(f"checkpoint of model moss: Blob {patient.newest[:12]}" in message for message in told)
    repaired = {finding.state: finding.message for finding in patient.examine(repair=True)}
    assert repaired["repaired"].endswith(f"it means {patient.before[:12]} now.")
    with patient.db.read() as session:
        assert catalogue.resolve(session, "moss").checkpoint.sha256 == patient.before


def test_a_state_that_a_training_forgets_while_the_doctor_reads_is_not_lost(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with patient.db.begin() as session:
        job = jobs.submit(session, "train", {})
        job.state_sha256, job.dispatched_at = patient.storage.put(b"state"), time.time()
    verify, read = Storage.verify, []

    def busy(storage: Storage, sha256: str) -> None:
        if not read:
            with patient.db.begin() as session:
                session.get_one(Job, job.id).state_sha256 = None
            patient.storage.delete(str(job.state_sha256))
        read.append(sha256)
        verify(storage, sha256)

    monkeypatch.setattr(Storage, "verify", busy)
    assert patient.examine() == []
    assert job.state_sha256 in read


def test_nobody_waits_to_write_while_it_is_told_what_was_repaired(patient: Patient) -> None:
    patient.spoil(patient.newest)
    told = []
    for finding in examine(patient.settings, repair=True):
        if finding.state == "repaired":
            told.append(finding)
            patient.db.close()
            with patient.db.begin() as session:  # whoever reads the findings may be slow: a terminal that was stopped
                jobs.submit(session, "render", {}).dispatched_at = time.time()
    assert len(told) == 1


def test_a_training_goes_on_from_the_state_before_a_lost_one(patient: Patient) -> None:
    newest, before = patient.storage.put(b"newest"), patient.storage.put(b"before")
    with patient.db.begin() as session:
        job = jobs.submit(session, "train", {})
        job.state_sha256, job.previous_state_sha256 = newest, before
        job.status, job.finished_at = "canceled", utc_now()
    patient.storage.delete(newest)
    assert patient.states() == {"blobs": "wrong"}
    assert patient.states(repair=True) == {"blobs": "repaired"}
    assert patient.examine() == []
    with patient.db.read() as session:
        row = session.get_one(Job, job.id)
        assert (row.state_sha256, row.previous_state_sha256) == (before, None)


def test_a_lost_sheet_is_shown_no_more(patient: Patient) -> None:
    with patient.db.read() as session:
        sheet = str(session.get_one(Checkpoint, ("moss", patient.newest)).sheet_sha256)
    patient.spoil(sheet)
    assert patient.states(repair=True) == {"blobs": "repaired"}
    assert patient.examine() == []


def test_what_was_prepared_is_prepared_again_and_a_lost_archive_is_only_told(patient: Patient) -> None:
    put = patient.storage.put
    with patient.db.begin() as session:
        rows = []
        for name in ("good", "bad"):
            row, job = datasets.create(session, name=name, source_sha256=put(name.encode()), request={"resolution": 32})
            row.array_sha256, row.manifest_sha256 = put(b"array of " + name.encode()), put(b"list of " + name.encode())
            row.status, job.status, job.dispatched_at = "ready", "succeeded", time.time()
            rows.append(row)
    for row in rows:
        patient.storage.delete(str(row.array_sha256))
    patient.storage.delete(rows[1].source_sha256)
    assert [finding.state for finding in patient.examine(repair=True)] == ["repaired", "wrong", "wrong", "wrong"]
    with patient.db.read() as session:
        again, lost = (session.get_one(Dataset, row.id) for row in rows)
        assert (again.status, lost.status) == ("preparing", "ready")
        assert jobs.find(session, str(again.job_id)).request == {"dataset": again.id, "resolution": 32}


def test_litter_is_deleted_when_it_is_old_and_named_nowhere(patient: Patient) -> None:
    old, young, mentioned = (patient.storage.put(name) for name in (b"old", b"young", b"mentioned"))
    with patient.db.begin() as session:
        job = jobs.submit(session, "render", {"somewhere": [mentioned]})
        job.dispatched_at = time.time()
    for sha256 in (old, mentioned, patient.newest):
        patient.age(patient.storage.path(sha256))
    half = patient.storage.root / "tmp" / "half"
    half.write_bytes(b"half a file")
    patient.age(half)
    with patient.db.begin() as session:
        canceled = jobs.submit(session, "render", {})
        canceled.parts, canceled.status = [patient.storage.put(b"part")], "canceled"
    patient.age(patient.storage.path(canceled.parts[0]))
    assert patient.states() == {"orphans": "wrong", "scratch": "wrong"}
    assert patient.states(repair=True) == {"orphans": "repaired", "scratch": "repaired"}
    assert patient.examine() == []
    with pytest.raises(NotFound):
        patient.storage.get(old)
    assert patient.storage.get(young) == b"young"
    assert patient.storage.get(mentioned) == b"mentioned"
    assert patient.storage.get(canceled.parts[0]) == b"part"  # it may be resumed
    assert not half.exists()


def test_silent_workers_are_told_of_and_their_jobs_handed_on(patient: Patient) -> None:
    with patient.db.begin() as session:
        job = jobs.submit(session, "render", {})
        job.status, job.lease_until, job.dispatched_at = "running", time.time() - 60, time.time()
    noted = [finding for finding in examine(patient.settings, repair=False) if finding.about == "jobs"]
    assert [finding.state for finding in noted] == ["note"]  # no studio runs that would have to
    with (patient.settings.data / machine.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert patient.states() == {"redis": "wrong", "jobs": "wrong"}
        assert patient.states(repair=True)["jobs"] == "repaired"
    with patient.db.read() as session:
        assert session.get_one(Job, job.id).status == "queued"


def test_an_older_schema_is_brought_up_to_date_and_a_newer_one_left_alone(patient: Patient) -> None:
    def pretend(revision: str) -> None:
        with patient.db.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})

    pretend("9999")
    told = [finding for finding in examine(patient.settings, repair=True) if finding.state == "wrong"]
    assert ["newer Ganvas" in finding.message for finding in told] == [True]


def test_rows_of_the_future_and_too_little_room_are_told_of(patient: Patient) -> None:
    with patient.db.begin() as session:
        job = jobs.submit(session, "render", {})
        job.dispatched_at = time.time()
        session.flush()
        session.execute(update(JobEvent).values(created_at=utc_now() + timedelta(hours=1)))
    assert patient.states() == {"clock": "wrong"}
    patient.settings = patient.settings.model_copy(update={"free_space_floor_mib": 1 << 40})
    assert patient.states() == {"clock": "wrong", "space": "wrong"}


def test_a_damaged_database_is_one_clear_finding(patient: Patient) -> None:
    patient.db.close()
    file = patient.settings.data / "ganvas.sqlite3"
    data = bytearray(file.read_bytes())
    data[8192 : len(data) // 2] = os.urandom(len(data) // 2 - 8192)
    file.write_bytes(data)
    wrong = [finding for finding in examine(patient.settings, repair=True) if finding.state == "wrong"]
    assert wrong
    assert {finding.about for finding in wrong} == {"database"}
    assert "ackup" in wrong[0].message


def test_every_blob_that_a_row_names_is_known(patient: Patient) -> None:
    put = patient.storage.put
    with patient.db.begin() as session:
        done = jobs.submit(session, "render", {"target": put(b"sent")})
        done.result, done.parts, done.preview_sha256 = {"file": put(b"file")}, [put(b"part")], put(b"preview")
        waiting = jobs.submit(session, "project", {"target": put(b"to find")})
        done.status = "succeeded"
        jobs.tell(session, waiting.id, "warning", {"evidence_sha256": put(b"evidence")})
    with patient.db.read() as session:
        named = blobs.named(session)
    wanted = {"file": "file of job", "preview": "preview of job", "to find": "picture sent to job"}
    for content, what in wanted.items():
        assert named.needed[put(content.encode())].startswith(what)
    assert put(b"evidence") in named.needed
    assert put(b"sent") not in named.needed  # its job has ended
    assert put(b"sent") in named
