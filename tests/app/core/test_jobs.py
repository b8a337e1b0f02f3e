"""A job is claimed once, held by a lease, handed on when its holder falls silent, and published by its epoch only."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.core import datasets, jobs, saving
from app.core.db import Database, clock
from app.core.errors import Conflict, JobStateConflict, NotFound, StorageFull, Unavailable
from app.core.records import Dataset, Job


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite3")
    database.migrate()
    yield database
    database.close()


def submit(db: Database) -> str:
    with db.begin() as session:
        return jobs.submit(session, "train", {"name": "a"}).id


def hold(db: Database, job_id: str) -> jobs.Claim:
    claim = jobs.claim(db, job_id, threading.Event())
    assert claim is not None
    return claim


def fetch(db: Database, job_id: str) -> Job:
    with db.read() as session:
        return jobs.find(session, job_id)


def expire_lease(db: Database, job_id: str) -> None:
    with db.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=clock(session) - 1))


def test_of_sixteen_deliveries_at_once_exactly_one_claims_the_job(db: Database) -> None:
    job_id = submit(db)
    claims: list[jobs.Claim | None] = []
    start = threading.Barrier(16)

    def deliver() -> None:
        start.wait()
        claims.append(jobs.claim(db, job_id, threading.Event()))

    threads = [threading.Thread(target=deliver) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [claim for claim in claims if claim is not None]
    assert len(won) == 1
    assert fetch(db, job_id).attempts == 1
    won[0].release()


def test_a_silent_holder_loses_the_job_and_can_publish_nothing_more(db: Database) -> None:
    job_id = submit(db)
    silent = hold(db, job_id)
    expire_lease(db, job_id)
    with db.begin() as session:
        assert [job.id for job in jobs.reconcile(session)] == [job_id]
    heir = hold(db, job_id)
    assert heir.epoch == silent.epoch + 1
    with pytest.raises(jobs.LeaseLost):
        silent.finish("succeeded", message="too late")
    assert silent.should_stop()
    heir.finish("succeeded", message="done")
    assert fetch(db, job_id).message == "done"
    silent.release()
    heir.release()


def test_three_attempts_that_save_nothing_end_the_job_with_the_reason(db: Database) -> None:
    job_id = submit(db)
    for _attempt in range(jobs.MAX_FRUITLESS_ATTEMPTS):
        hold(db, job_id).release()
        expire_lease(db, job_id)
        with db.begin() as session:
            jobs.reconcile(session)
    job = fetch(db, job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "job_poisoned"
    assert "3 attempts" in job.message
    history = job.error["history"]
    assert [attempt["attempt"] for attempt in history] == [1, 2, 3]
    assert all(attempt["ended"].startswith("The worker fell silent.") for attempt in history)
    assert all(attempt["began_at"] <= attempt["ended_at"] for attempt in history)


def test_an_attempt_that_saved_its_state_is_not_counted_against_the_job(db: Database) -> None:
    job_id = submit(db)
    for _attempt in range(2 * jobs.MAX_FRUITLESS_ATTEMPTS):
        claim = hold(db, job_id)
        claim.publish(lambda _session, job, number=_attempt: saving.keep_state(job, f"{number:064}", 1.0))
        claim.release()
        expire_lease(db, job_id)
        with db.begin() as session:
            jobs.reconcile(session)
    assert fetch(db, job_id).status == "queued"


def test_a_cancel_of_a_queued_job_is_final_at_once(db: Database) -> None:
    job_id = submit(db)
    with db.begin() as session:
        assert jobs.cancel(session, job_id).status == "canceled"
    assert jobs.claim(db, job_id, threading.Event()) is None


def test_a_cancel_reaches_the_holder_of_a_running_job(db: Database) -> None:
    claim = hold(db, submit(db))
    assert not claim.should_stop()
    with db.begin() as session:
        jobs.cancel(session, claim.job_id)
    assert wait_for(lambda: claim.canceled)
    claim.finish("canceled", message="Canceled.")
    claim.release()
    assert fetch(db, claim.job_id).status == "canceled"


def test_an_interrupted_job_goes_back_to_the_queue_when_its_claim_is_released(db: Database) -> None:
    job_id = submit(db)
    interrupted = threading.Event()
    claim = jobs.claim(db, job_id, interrupted)
    assert claim is not None
    interrupted.set()
    assert claim.should_stop()
    claim.release()
    job = fetch(db, job_id)
    assert (job.status, job.epoch, job.fruitless) == ("queued", 2, 0)


def test_a_dead_holder_is_replaced_at_once_but_only_for_its_own_epoch(db: Database) -> None:
    claim = hold(db, submit(db))
    with db.begin() as session:
        jobs.holder_died(session, claim.job_id, claim.epoch + 1)
    assert fetch(db, claim.job_id).status == "running"
    with db.begin() as session:
        jobs.holder_died(session, claim.job_id, claim.epoch)
    assert fetch(db, claim.job_id).status == "queued"
    claim.release()


def test_an_ended_job_cannot_be_canceled_and_only_failed_or_canceled_ones_resume(db: Database) -> None:
    claim = hold(db, submit(db))
    claim.finish("succeeded", message="done")
    claim.release()
    with db.begin() as session, pytest.raises(JobStateConflict, match="is succeeded"):
        jobs.cancel(session, claim.job_id)
    with db.begin() as session, pytest.raises(JobStateConflict, match="only a canceled or failed"):
        jobs.resume(session, claim.job_id)
    other = submit(db)
    with db.begin() as session:
        jobs.cancel(session, other)
        assert jobs.resume(session, other).status == "queued"


def test_a_job_is_not_resumed_under_a_name_that_another_training_has_taken(db: Database) -> None:
    first = submit(db)
    with db.begin() as session:
        jobs.cancel(session, first)
    submit(db)
    with db.begin() as session, pytest.raises(Conflict, match="exists already"):
        jobs.resume(session, first)


def test_a_cause_that_lasts_ends_the_job_after_as_many_attempts_as_a_crash_does(db: Database) -> None:
    job_id = submit(db)
    for _attempt in range(jobs.MAX_FRUITLESS_ATTEMPTS):
        claim = hold(db, job_id)
        claim.give_back("Storage did not answer.")
        claim.release()
    job = fetch(db, job_id)
    assert job.status == "failed"
    assert "Storage did not answer. 3 attempts" in job.message


def test_a_full_disk_is_waited_for_with_the_job_in_hand_and_is_nobodys_failure(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ROOM_SECONDS", 0.01)
    claim = hold(db, submit(db))
    tries: list[str] = []

    def write() -> str:
        tries.append(fetch(db, claim.job_id).message)
        if len(tries) < 3:
            raise StorageFull("No room.")
        return "written"

    assert claim.patiently(write) == "written"
    assert tries[0] == "Starting."
    assert "Waiting for room" in tries[1] == tries[2]
    with db.read() as session:
        kinds = [event.data.get("kind") for event in jobs.events_after(session, claim.job_id, 0)]
    assert kinds.count("storage_full") == 1
    claim.give_back("No room.", counted=False)
    claim.release()
    assert (fetch(db, claim.job_id).status, fetch(db, claim.job_id).fruitless) == ("queued", 0)


def test_a_holder_that_waits_for_room_leaves_when_it_has_to(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ROOM_SECONDS", 0.01)
    interrupted = threading.Event()
    claim = jobs.claim(db, submit(db), interrupted)
    assert claim is not None

    def write() -> None:
        interrupted.set()
        raise StorageFull("No room.")

    with pytest.raises(StorageFull):
        claim.patiently(write)
    claim.release()


def test_a_database_that_is_locked_for_a_while_costs_a_publish_only_time(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ROOM_SECONDS", 0.01)
    claim = hold(db, submit(db))
    tries: list[int] = []

    def change(_session: Session, job: Job) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("Locked.", code="database_unavailable")
        job.message = "through"

    claim.publish(change)
    claim.release()
    assert fetch(db, claim.job_id).message == "through"


def test_a_holder_that_does_not_heed_a_cancel_in_time_or_has_lost_the_job_is_to_be_ended(db: Database) -> None:
    claim = hold(db, submit(db))

    def why(epoch: int, step_seconds: float = 1.0) -> str | None:
        with db.read() as session:
            return jobs.overdue(session, claim.job_id, epoch, step_seconds)

    assert why(claim.epoch) is None
    with db.begin() as session:
        jobs.cancel(session, claim.job_id)
    assert why(claim.epoch) is None
    with db.begin() as session:
        job = jobs.find(session, claim.job_id)
        job.cancel_requested_at = clock(session) - jobs.HARD_STOP_SECONDS - 1
        jobs.cancel(session, claim.job_id)  # asking again does not set it back
    assert why(claim.epoch) == "It did not heed a cancel."
    assert why(claim.epoch, jobs.HARD_STOP_SECONDS + 60) is None  # it may be in a step as long as that
    assert why(claim.epoch + 1) == "Another epoch has the job."
    with db.begin() as session:
        jobs.holder_died(session, claim.job_id, claim.epoch)
    claim.release()
    assert fetch(db, claim.job_id).status == "canceled"


def test_a_delivery_for_another_epoch_claims_nothing(db: Database) -> None:
    job_id = submit(db)
    assert jobs.claim(db, job_id, threading.Event(), epoch=2) is None
    claim = jobs.claim(db, job_id, threading.Event(), epoch=1)
    assert claim is not None
    claim.release()


def test_a_job_that_nobody_takes_for_want_of_room_says_so(db: Database) -> None:
    job_id = submit(db)
    with db.begin() as session:
        jobs.say_waiting(session, job_id, "There is no room.")
    assert fetch(db, job_id).message == "There is no room."


def test_events_are_replayed_in_order_from_any_point(db: Database) -> None:
    claim = hold(db, submit(db))
    for kimg in range(3):
        claim.report("tick", {"kimg": kimg}, progress=kimg / 3)
    claim.release()
    with db.read() as session:
        events = jobs.events_after(session, claim.job_id, 0)
        assert [event.type for event in events] == ["status", "status", "tick", "tick", "tick"]
        assert [event.data["kimg"] for event in jobs.events_after(session, claim.job_id, events[2].id)] == [1, 2]


def test_positions_count_the_queued_jobs_of_the_same_kind(db: Database) -> None:
    ids = [submit(db) for _ in range(3)]
    with db.read() as session:
        assert [jobs.position(session, jobs.find(session, job_id)) for job_id in ids] == [0, 1, 2]


def test_a_dataset_whose_preparation_is_canceled_is_failed_with_the_reason(db: Database) -> None:
    with db.begin() as session:
        dataset, job = datasets.create(session, name="d", source_sha256="0" * 64, request={})
        jobs.cancel(session, job.id)
    with db.read() as session:
        row = session.get(Dataset, dataset.id)
        assert row is not None
        assert (row.status, (row.error or {})["code"]) == ("failed", "canceled")


def test_a_change_that_fails_inside_publish_leaves_no_trace(db: Database) -> None:
    claim = hold(db, submit(db))

    def change(_session: Session, job: Job) -> None:
        job.message = "half-way"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        claim.publish(change)
    claim.release()
    assert fetch(db, claim.job_id).message == "Starting."


def test_a_long_reason_fits_the_column_and_stays_whole_in_the_error(db: Database) -> None:
    claim = hold(db, submit(db))
    claim.finish("failed", message="x" * 2_000, error={"code": "c", "message": "x" * 2_000})
    claim.release()
    job = fetch(db, claim.job_id)
    assert (len(job.message), len((job.error or {})["message"])) == (500, 2_000)


def test_an_unknown_job_is_not_found(db: Database) -> None:
    with db.read() as session, pytest.raises(NotFound, match="job_0"):
        jobs.find(session, "job_0")


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    ticker = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        ticker.wait(0.05)
    return False
