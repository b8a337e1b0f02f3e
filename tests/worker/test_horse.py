"""The worker runs its own task and nothing else, whatever somebody wrote into Redis."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from app import embedded_redis
from app.core import datasets, jobs
from app.core.db import Database, clock
from app.core.queue import connect
from app.core.records import Job
from app.core.settings import Settings


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def answers(connection: Redis) -> bool:
    try:
        return bool(connection.ping())
    except RedisError:
        return False


def is_idle(connection: Redis) -> bool:
    """Whether a worker waits for jobs, and so listens for signals; it is registered before that."""
    return [connection.hget(name, "state") for name in connection.smembers("rq:workers")] == [b"idle"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Redis]:
    settings = Settings(data=tmp_path)
    with subprocess.Popen(embedded_redis.command(settings)) as process:
        made = connect(settings.redis)
        assert wait_until(lambda: answers(made))
        yield made
        made.close()
        process.kill()


@pytest.fixture
def worker(connection: Redis, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    database = Database(Settings(data=tmp_path).database)
    database.migrate()
    database.close()
    environment = os.environ | {"GANVAS_DATA": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "worker", "prepare"], env=environment) as process:
        assert wait_until(lambda: is_idle(connection))
        yield process
        process.terminate()


def test_a_function_that_is_not_its_task_is_dropped_and_the_worker_lives(
    connection: Redis, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    queue = Queue("prepare", connection=connection, serializer=JSONSerializer)
    queue.enqueue_call("os.mkdir", args=(str(canary),), job_id="evil")
    queue.enqueue_call("worker.tasks.train", args=("job_of_another_queue",), job_id="misplaced")
    assert wait_until(lambda: queue.fetch_job("evil") is None and queue.fetch_job("misplaced") is None)
    assert not canary.exists()
    assert worker.poll() is None


def test_a_job_nobody_knows_is_a_quiet_no_op(connection: Redis, worker: subprocess.Popen[bytes]) -> None:
    queue = Queue("prepare", connection=connection, serializer=JSONSerializer)
    queue.enqueue_call("worker.tasks.prepare", args=("job_unknown",), job_id="job_unknown-1")

    def finished() -> bool:
        job = queue.fetch_job("job_unknown-1")
        return job is not None and job.is_finished

    assert wait_until(finished)
    assert worker.poll() is None


@pytest.mark.usefixtures("worker")
def test_the_worker_of_preparations_measures_too(connection: Redis) -> None:
    queue = Queue("prepare", connection=connection, serializer=JSONSerializer)
    queue.enqueue_call("worker.tasks.calibrate", job_id="calibrate-1")

    def finished() -> bool:
        job = queue.fetch_job("calibrate-1")
        return job is not None and job.is_finished

    assert wait_until(finished)


def test_sigterm_ends_an_idle_worker_at_once(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    assert worker.wait(timeout=10) == 0


def test_an_unknown_queue_is_refused_with_the_ones_there_are() -> None:
    done = subprocess.run([sys.executable, "-m", "worker", "everything"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "prepare,train" in done.stderr


def test_without_redis_the_worker_says_so_in_one_line(tmp_path: Path) -> None:
    environment = os.environ | {"GANVAS_DATA": str(tmp_path)}
    command = [sys.executable, "-m", "worker", "train"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Redis does not answer" in done.stderr
    assert done.stderr.count("\n") == 1


STUCK = """
import sys, time
from worker import __main__, horse, tasks

def stick(job_id, epoch):
    tasks.interrupted.clear()
    db = tasks.Database(tasks.load_settings().database)
    assert tasks.jobs.claim(db, job_id, tasks.interrupted, epoch)
    time.sleep(600)

tasks.prepare = stick
horse.HEARTBEAT_SECONDS = 1
sys.argv = ["worker", "prepare"]
sys.exit(__main__.main())
"""


def test_worker_and_horse_outlive_redis_and_a_horse_that_heeds_no_cancel_is_killed_meanwhile(
    connection: Redis, tmp_path: Path
) -> None:
    db = Database(Settings(data=tmp_path).database)
    db.migrate()
    with db.begin() as session:
        _dataset, job = datasets.create(session, name="d", source_sha256="0" * 64, request={})

    def row() -> Job:
        with db.read() as session:
            return jobs.find(session, job.id)

    environment = os.environ | {"GANVAS_DATA": str(tmp_path), "GANVAS_STEP_TIMEOUT_MINUTES": "0.5"}
    with subprocess.Popen([sys.executable, "-c", STUCK], env=environment) as process:
        queue = Queue("prepare", connection=connection, serializer=JSONSerializer)
        queue.enqueue_call("worker.tasks.prepare", args=(job.id, 1), job_id=f"{job.id}-1", timeout=-1)
        assert wait_until(lambda: row().status == "running")
        (horse,) = psutil.Process(process.pid).children()
        connection.shutdown(nosave=True)
        time.sleep(2.5)
        assert horse.is_running()
        with db.begin() as session:
            jobs.cancel(session, job.id)
            jobs.find(session, job.id).cancel_requested_at = clock(session) - jobs.HARD_STOP_SECONDS - 1
        assert wait_until(lambda: row().status == "canceled")
        assert not horse.is_running()
        assert process.poll() is None
        process.terminate()
        assert process.wait(timeout=20) == 0
    db.close()


def test_an_interruption_breaks_off_what_has_no_steps_and_is_only_noted_elsewhere() -> None:
    script = (
        "import os, signal; from worker import horse\n"
        "signal.signal(signal.SIGUSR1, horse.interrupt)\n"
        "try:\n"
        "    with horse.breakable():\n"
        "        os.kill(os.getpid(), signal.SIGUSR1)\n"
        "        while True: pass\n"
        "except horse.Interrupted:\n"
        "    print('broken off')\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "print('noted', horse.interrupted.is_set())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["broken off", "noted True"]


@pytest.mark.usefixtures("connection")
def test_a_horse_runs_with_the_niceness_it_was_given(tmp_path: Path) -> None:
    script = (
        "import os, rq; from app.core.queue import connect; from worker.horse import GanvasWorker\n"
        "rq.Worker.main_work_horse = lambda *_: print(os.nice(0))\n"
        f"connection = connect({Settings(data=tmp_path).redis!r})\n"
        "worker = GanvasWorker('train', db=None, niceness=7, step_minutes=1, connection=connection)\n"
        "worker.main_work_horse(None, None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) == os.nice(0) + 7


def test_a_worker_tells_the_libraries_to_yield_unless_they_were_told_otherwise(tmp_path: Path) -> None:
    script = (
        "import os, sys; from worker.__main__ import main\n"
        "sys.argv = ['worker', 'train']\n"
        "main()\n"
        "print(os.environ['GOMP_SPINCOUNT'], os.environ['CUDA_MPS_CLIENT_PRIORITY'])\n"
    )
    environment = os.environ | {"GANVAS_DATA": str(tmp_path), "GOMP_SPINCOUNT": "17"}
    environment.pop("CUDA_MPS_CLIENT_PRIORITY", None)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["17", "1"]
