"""Starts the processes of a training that runs on several GPUs or machines, by torchrun, and looks after them."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import structlog
import torch

from app.core import jobs
from app.core.settings import Settings
from worker.horse import DRAIN_SECONDS, tied_to
from worker.training.guard import SMALLEST_PASS

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 0.1
STOP_SECONDS: Final = DRAIN_SECONDS + 5  # the ranks save within the first, torchrun notices within the second
LOOPBACK: Final = "lo0" if sys.platform == "darwin" else "lo"


def process_count(settings: Settings, batch_size: int) -> int:
    """How many processes of this machine train together: as many as are wanted and as share the batch out evenly."""
    gpus = torch.cuda.device_count() if settings.device in {"auto", "cuda"} else int(settings.device != "cpu")
    most = settings.train_processes or max(1, gpus)
    most = min(most, gpus or most, batch_size // SMALLEST_PASS)  # one a GPU
    return max(count for count in range(1, most + 1) if batch_size % count == 0)


def train_together(settings: Settings, claim: jobs.Claim, processes: int, interrupted: threading.Event) -> None:
    """Run the claimed job in several processes until they have left, whatever came of it: the first one says so in the
    job's row. It sees by itself that the job is canceled or lost; `interrupted` has them save their state and leave."""
    with tempfile.TemporaryDirectory(prefix="ganvas-ranks-") as folder:
        child = _start(settings, claim, processes, Path(folder))
        log.info("ranks_started", job=claim.job_id, processes=processes, pid=child.pid)
        status = _wait(child, claim, interrupted)
    log.info("ranks_left", job=claim.job_id, status=status)


def _start(settings: Settings, claim: jobs.Claim, processes: int, folder: Path) -> subprocess.Popen[bytes]:
    """torchrun, in a process group of its own; its life is tied to ours, and those of the ranks to its."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--log-dir", os.devnull]
    rank = ["-m", "worker.training.rank", "--job", claim.job_id, "--epoch", str(claim.epoch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # until each rank has counted its threads
    if settings.train_torchrun is not None:
        command += shlex.split(settings.train_torchrun)
    else:
        # torchrun --standalone would listen on all addresses and unpickle what it is sent there. A file in a folder of
        # our own does as well, and the ranks talk on loopback.
        conf = "store_type=file,keep_alive_interval=600"
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={folder / 'torchrun'}", f"--rdzv-conf={conf}"]
        command += [f"--rdzv-id={claim.job_id}-{claim.epoch}"]
        rank += ["--meet", (folder / "ranks").as_uri()]
        environment |= {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
        environment |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.Popen(
        [*command, *rank],
        env=environment,
        process_group=0,
        stdin=subprocess.DEVNULL,
        preexec_fn=tied_to(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one prctl, no locks
    )


def _wait(child: subprocess.Popen[bytes], claim: jobs.Claim, interrupted: threading.Event) -> int:
    """Its exit status, once it has left; it is asked to when `interrupted`, and killed when it does not. Whether the
    work goes on is for the first process to show."""
    deadline: float | None = None
    while True:
        claim.sign()
        try:
            return child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if deadline is None and interrupted.is_set():
                deadline = time.monotonic() + STOP_SECONDS
                child.terminate()
            elif deadline is not None and time.monotonic() > deadline:
                os.killpg(child.pid, signal.SIGKILL)
