"""The worker runs its own task and nothing else, whatever somebody wrote into Redis."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.serializers import JSONSerializer

from app import embedded_redis
from app.core.db import Database
from app.core.queue import connect
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


@pytest.mark.usefixtures("connection")
def test_a_horse_runs_with_the_niceness_it_was_given(tmp_path: Path) -> None:
    script = (
        "import os, rq; from app.core.queue import connect; from worker.horse import GanvasWorker\n"
        "rq.Worker.main_work_horse = lambda *_: print(os.nice(0))\n"
        f"connection = connect({Settings(data=tmp_path).redis!r})\n"
        "GanvasWorker('train', db=None, niceness=7, connection=connection).main_work_horse(None, None)\n"
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
