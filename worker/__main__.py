"""`python -m worker QUEUE`: one worker process on one queue: prepare, train, render or project."""

import importlib
import os
import sys

from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from app.core.db import Database
from app.core.errors import GanvasError
from app.core.logs import configure_logs
from app.core.queue import QUEUES, connect
from app.core.settings import load_settings
from worker.horse import GanvasWorker

# How long an OpenMP thread spins for its next piece of work. The default, some milliseconds, is dear as soon as
# anything else wants a core: beside a busy neighbour, a pass of two threads took 432 ms with it and 13.5 ms with this.
GOMP_SPINCOUNT = "3000"
# Where NVIDIA's MPS runs the processes of a GPU side by side: below the normal priority, which is that of drawing.
# Without MPS nobody reads it. https://docs.nvidia.com/deploy/mps
CUDA_MPS_CLIENT_PRIORITY = "1"
# What a queue's horses would each import, some seconds long: done once here, before the first fork, so that a loop of a
# second takes a second. It costs memory while the worker is idle; trainings and projections are long, and wait for it.
IMPORTED_BEFORE = {"render": ("worker.rendering.films", "worker.rendering.bulk", "worker.rendering.sheets")}
WORKER_TTL_SECONDS = 60  # an idle worker returns to Redis this often: bounds how long a lost wake-up can last


def main() -> int:
    """Work until SIGTERM; 1 with one clear line where that cannot start."""
    if len(sys.argv) != 2 or sys.argv[1] not in QUEUES:
        sys.stderr.write(f"usage: python -m worker {{{','.join(QUEUES)}}}\n")
        return 2
    os.environ.setdefault("GOMP_SPINCOUNT", GOMP_SPINCOUNT)  # both are read when a horse imports torch
    os.environ.setdefault("CUDA_MPS_CLIENT_PRIORITY", CUDA_MPS_CLIENT_PRIORITY)
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        with connect(settings.redis) as trial:  # a connection of its own: the worker's wait longer than ours
            trial.ping()
        worker = GanvasWorker(
            sys.argv[1],
            db=Database(settings.database),
            niceness=settings.worker_niceness,
            step_minutes=settings.step_timeout_minutes,
            connection=connect(settings.redis),
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
        )
        for module in IMPORTED_BEFORE.get(sys.argv[1], ()):
            importlib.import_module(module)
        worker.work(logging_level="WARNING")
    except GanvasError as error:
        sys.stderr.write(f"ganvas worker: {error.message}\n")
        return 1
    except RedisError as error:
        sys.stderr.write(f"ganvas worker: Redis does not answer: {error}. Check GANVAS_REDIS_URL.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
