"""A whole studio as an artist starts it: `ganvas up` in a process of its own, on a free port and a folder."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image, ImageDraw

from models.presets import preset

START_SECONDS = 90.0
JOB_SECONDS = 180.0


class Studio:
    """A running `ganvas up` and a client for it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        own = {"GANVAS_DATA": str(folder), "GANVAS_PORT": str(self.port), "GANVAS_THREADS": "1", **environment}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GANVAS_")}
        self.log = folder.with_suffix(".log")  # of all its processes
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "up"], env=clean | own, stdout=output, stderr=subprocess.STDOUT
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.wait_for(self._is_ready, START_SECONDS)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def wait_for(self, condition: Callable[[], bool], seconds: float = JOB_SECONDS) -> None:
        """Return when the condition holds; fail when it does not within `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
            time.sleep(0.1)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as the API shows it."""
        answer = self.client.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    def finish(self, job_id: str) -> dict[str, Any]:
        """Wait for a job to end and give it back."""
        self.wait_for(lambda: self.job(job_id)["status"] in {"succeeded", "failed", "canceled"})
        return self.job(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """All events of a job."""
        found: list[dict[str, Any]] = []
        while True:
            after = {"after": found[-1]["id"]} if found else {}
            page = self.client.get(f"/v1/jobs/{job_id}/events", params={"limit": 200, **after}).json()
            found += page["data"]
            if not page["has_more"]:
                return found

    def processes(self) -> list[psutil.Process]:
        """Every process below `ganvas up`."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def child(self, name: str) -> psutil.Process | None:
        """The child of `ganvas up` of this name: redis, api, worker-train and so on; None while it is being started."""
        queue = name.removeprefix("worker-")
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                found = {
                    "redis": "redis-server" in " ".join(command[:1]),
                    "api": command[1:4] == ["-m", "app.cli", "api"],
                }.get(name, command[-3:] == ["-m", "worker", queue])
                if found and child.status() != psutil.STATUS_ZOMBIE:
                    return child
        return None

    def worker(self, queue: str) -> psutil.Process:
        """The worker process on a queue."""
        found = self.child(f"worker-{queue}")
        assert found is not None
        return found

    def horses(self, queue: str) -> list[psutil.Process]:
        """The work-horses under the worker on a queue; one at most, and none between jobs."""
        worker = self.child(f"worker-{queue}")
        try:
            return [] if worker is None else worker.children()
        except psutil.NoSuchProcess:
            return []

    def upload(self) -> str:
        """Send 48 small shapes, wait until they are ready, and give back the dataset's id."""
        files = {"files": ("shapes.zip", draw_shapes(), "application/zip")}
        answer = self.client.post("/v1/datasets", data={"name": "shapes", "resolution": "32"}, files=files)
        assert answer.status_code == 201, answer.text
        assert self.finish(answer.json()["job"])["status"] == "succeeded"
        dataset: str = answer.json()["id"]
        return dataset

    def start_training(self, dataset: str, *, minutes: float, name: str) -> str:
        """Ask for a training that takes snapshots every few seconds, and give back the job's id."""
        config = preset("tiny", 32, max_minutes=minutes, first_snapshot_minutes=0.05, longest_snapshot_minutes=0.1)
        body = {"dataset": dataset, "name": name, "config": config.model_dump(mode="json")}
        answer = self.client.post("/v1/training/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job: str = answer.json()["id"]
        assert answer.headers["location"] == f"/v1/jobs/{job}"
        return job

    def snapshots(self, job: str) -> list[dict[str, Any]]:
        """What each snapshot of a training told, in order."""
        return [event["data"] for event in self.events(job) if event["type"] == "snapshot"]

    def picture(self, model: str, seed: int) -> bytes:
        """One PNG."""
        answer = self.client.get(f"/v1/models/{model}/image", params={"seed": seed})
        assert answer.status_code == 200, answer.text
        return answer.content

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)
        return self.process.returncode


def draw_shapes(count: int = 48, side: int = 32) -> bytes:
    """A zip of coloured discs and squares on white, one sub-folder a shape."""
    random = np.random.RandomState(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(count):
            picture = Image.new("RGB", (side, side), "white")
            left, top, size = (int(value) for value in random.randint((2, 2, 8), (10, 10, 20)))
            shape = "disc" if index % 2 else "square"
            draw = ImageDraw.Draw(picture)
            paint = draw.ellipse if shape == "disc" else draw.rectangle
            paint((left, top, left + size, top + size), fill=tuple(int(value) for value in random.randint(0, 256, 3)))
            encoded = io.BytesIO()
            picture.save(encoded, "PNG")
            archive.writestr(f"{shape}/{index:03d}.png", encoded.getvalue())
    return buffer.getvalue()
