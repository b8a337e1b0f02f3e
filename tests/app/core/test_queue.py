"""The bell rings once for each job, again after Redis forgot it, and never for what the database does not hold."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from app import embedded_redis
from app.core import jobs
from app.core.db import Database
from app.core.errors import StorageFull
from app.core.lease import RENEW_SECONDS
from app.core.queue import (
    CALIBRATE,
    CALIBRATE_QUEUE,
    CLAIM_SECONDS,
    RING_SECONDS,
    TASKS,
    Dispatcher,
    connect,
    may_run,
)
from app.core.records import Job
from app.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


@pytest.fixture
def redis_server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(embedded_redis.command(settings)) as process:
        wait_for_redis(settings)
        yield process
        process.kill()


def wait_for_redis(settings: Settings) -> None:
    connection = connect(settings.redis)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            connection.ping()
            break
        except RedisError:
            time.sleep(0.02)
    connection.close()


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    db = Database(settings.database)
    db.migrate()
    made = Dispatcher(db, settings.redis)
    yield made
    made.close()
    db.close()


def submit(dispatcher: Dispatcher) -> Job:
    with dispatcher.db.begin() as session:
        return jobs.submit(session, "train", {"name": "a"})


def waiting(dispatcher: Dispatcher) -> list[str]:
    return Queue("train", connection=dispatcher.connection, serializer=JSONSerializer).get_job_ids()


def test_no_job_is_handed_on_behind_a_full_disk_before_its_holder_could_renew(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(dispatcher)
    with dispatcher.db.begin() as session:
        row = session.get_one(Job, job.id)
        row.status, row.lease_until = "running", 0.0

    def full(*_: object, **__: object) -> list[Job]:
        raise StorageFull("Full.")

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "reconcile", full)
        with pytest.raises(StorageFull):
            dispatcher.reconcile()

    def status_and_epoch() -> tuple[str, int]:
        dispatcher.reconcile()
        with dispatcher.db.read() as session:
            row = session.get_one(Job, job.id)
            return row.status, row.epoch

    assert status_and_epoch() == ("running", 1)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * RENEW_SECONDS + 1)
    assert status_and_epoch() == ("queued", 2)


@pytest.mark.usefixtures("redis_server")
def test_a_job_waits_once_however_often_it_is_dispatched(dispatcher: Dispatcher) -> None:
    job = submit(dispatcher)
    assert dispatcher.dispatch(job)
    assert dispatcher.dispatch(job)
    assert waiting(dispatcher) == [f"{job.id}-1"]


@pytest.mark.usefixtures("redis_server")
def test_what_waits_names_its_task_and_its_job_and_nothing_else(dispatcher: Dispatcher) -> None:
    job = submit(dispatcher)
    dispatcher.dispatch(job)
    queue = Queue("train", connection=dispatcher.connection, serializer=JSONSerializer)
    found = queue.fetch_job(f"{job.id}-1")
    assert found is not None
    assert (found.func_name, tuple(found.args), found.kwargs) == (TASKS["train"], (job.id, 1), {})


@pytest.mark.usefixtures("redis_server")
def test_a_flushed_redis_is_filled_again_from_the_database(dispatcher: Dispatcher) -> None:
    ids = [submit(dispatcher).id for _ in range(5)]
    assert dispatcher.reconcile() == 5
    dispatcher.connection.flushall()
    with dispatcher.db.begin() as session:  # as if the last dispatch was a while ago
        for job_id in ids:
            jobs.find(session, job_id).dispatched_at = 0.0
    assert dispatcher.reconcile() == 5
    assert waiting(dispatcher) == [f"{job_id}-1" for job_id in ids]


@pytest.mark.usefixtures("redis_server")
def test_a_delivery_that_vanished_between_queue_and_worker_is_made_again(dispatcher: Dispatcher) -> None:
    job = submit(dispatcher)
    dispatcher.dispatch(job)
    dispatcher.connection.delete("rq:queue:train")  # popped, then the worker was killed: the hash stays (E6)
    assert dispatcher.dispatch(job)
    assert waiting(dispatcher) == [f"{job.id}-1"]


def test_a_job_accepted_while_redis_is_away_is_dispatched_when_it_is_back(
    settings: Settings, dispatcher: Dispatcher
) -> None:
    job = submit(dispatcher)
    assert not dispatcher.is_up()
    assert not dispatcher.dispatch(job)
    assert dispatcher.reconcile() == 0
    with subprocess.Popen(embedded_redis.command(settings)) as process:
        wait_for_redis(settings)
        assert dispatcher.reconcile() == 1
        assert waiting(dispatcher) == [f"{job.id}-1"]
        process.kill()


def test_a_redis_that_hangs_is_waited_for_once_and_then_left_to_the_reconciler(
    dispatcher: Dispatcher, redis_server: subprocess.Popen[bytes]
) -> None:
    accepted = [submit(dispatcher) for _ in range(20)]
    redis_server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert not any(dispatcher.dispatch(job) for job in accepted)
    assert dispatcher.reconcile() == 0
    assert time.monotonic() - began < 5 * RING_SECONDS
    redis_server.send_signal(signal.SIGCONT)
    assert dispatcher.reconcile() == len(accepted)
    assert waiting(dispatcher) == [f"{job.id}-1" for job in accepted]


@pytest.mark.usefixtures("redis_server")
def test_a_full_redis_is_as_one_that_is_away(dispatcher: Dispatcher) -> None:
    job = submit(dispatcher)
    dispatcher.connection.config_set("maxmemory", 1)
    assert not dispatcher.dispatch(job)
    dispatcher.connection.config_set("maxmemory", 0)
    assert dispatcher.reconcile() == 1
    assert waiting(dispatcher) == [f"{job.id}-1"]


@pytest.mark.parametrize("seconds", [1, 60])
@pytest.mark.usefixtures("redis_server")
def test_a_delivery_that_a_worker_took_is_made_again_only_when_it_was_not_claimed_in_time(
    dispatcher: Dispatcher, seconds: float
) -> None:
    job = submit(dispatcher)
    dispatcher.dispatch(job)
    dispatcher.connection.lmove("rq:queue:train", "rq:queue:train:intermediate")
    with dispatcher.db.begin() as session:
        jobs.find(session, job.id).dispatched_at = time.time() - jobs.RENEW_SECONDS - seconds
    assert dispatcher.reconcile() == (seconds > CLAIM_SECONDS)


@pytest.mark.usefixtures("redis_server")
def test_of_more_jobs_than_are_looked_at_in_one_go_each_has_its_turn(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "RECONCILED_AT_ONCE", 3)
    accepted = [submit(dispatcher) for _ in range(7)]
    assert [dispatcher.reconcile() for _ in range(4)] == [3, 3, 1, 0]
    assert waiting(dispatcher) == [f"{job.id}-1" for job in accepted]


@pytest.mark.usefixtures("redis_server")
def test_queued_jobs_survive_a_killed_redis(
    settings: Settings, dispatcher: Dispatcher, redis_server: subprocess.Popen[bytes]
) -> None:
    job = submit(dispatcher)
    dispatcher.dispatch(job)
    redis_server.kill()
    redis_server.wait()
    with subprocess.Popen(embedded_redis.command(settings)) as again:
        wait_for_redis(settings)
        assert waiting(dispatcher) == [f"{job.id}-1"]
        again.kill()


@pytest.mark.usefixtures("redis_server")
def test_the_bell_for_measurements_hangs_once_and_says_nothing_but_the_task(dispatcher: Dispatcher) -> None:
    assert dispatcher.calibrate()
    assert dispatcher.calibrate()
    queue = Queue(CALIBRATE_QUEUE, connection=dispatcher.connection, serializer=JSONSerializer)
    (waits,) = queue.jobs
    assert (waits.func_name, tuple(waits.args), waits.kwargs) == (CALIBRATE, (), {})
    queue.empty()
    assert dispatcher.calibrate()
    assert len(queue) == 1


def test_without_redis_the_bell_for_measurements_says_that_it_did_not_ring(dispatcher: Dispatcher) -> None:
    assert not dispatcher.calibrate()


def test_a_queue_runs_its_own_task_and_measurements_where_they_belong() -> None:
    for queue in TASKS:
        assert [task for task in (*TASKS.values(), "os.system") if may_run(queue, task)] == [TASKS[queue]]
        assert may_run(queue, CALIBRATE) == (queue == CALIBRATE_QUEUE)
    assert not may_run("elsewhere", CALIBRATE)
    assert not may_run("elsewhere", None)
