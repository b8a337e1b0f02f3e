"""`python -m worker QUEUE`: one worker process on one queue, `prepare` or `train`."""

import sys

from redis.exceptions import RedisError
from rq.serializers import JSONSerializer

from app.core.db import Database
from app.core.errors import GanvasError
from app.core.logs import configure_logs
from app.core.queue import QUEUES, connect
from app.core.settings import load_settings
from worker.horse import GanvasWorker

WORKER_TTL_SECONDS = 60  # an idle worker returns to Redis this often: bounds how long a lost wake-up can last


def main() -> int:
    """Work until SIGTERM; 1 with one clear line where that cannot start."""
    if len(sys.argv) != 2 or sys.argv[1] not in QUEUES:
        sys.stderr.write(f"usage: python -m worker {{{','.join(QUEUES)}}}\n")
        return 2
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        connection = connect(settings.redis)
        connection.ping()
        worker = GanvasWorker(
            sys.argv[1],
            db=Database(settings.database),
            niceness=settings.worker_niceness,
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
        )
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
