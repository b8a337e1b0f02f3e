"""`ganvas demo`: the whole story over HTTP, from the sample artwork to a contact sheet of a model trained on it."""

import io
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from rich.console import Console

from app import supervisor
from app.core.errors import NotFound, Unavailable
from app.core.settings import Settings
from app.samples import ARTWORK

START_SECONDS = 120.0  # a cold import of torch from a slow disk
console = Console(highlight=False)


def tell(settings: Settings, *, minutes: float, out: Path) -> None:
    """Upload, train, draw, save; raises one of our errors where any step fails."""
    if not ARTWORK.exists():
        raise NotFound(f"The sample artwork is not at {ARTWORK}; run the demo from a checkout of the repository.")
    out.mkdir(parents=True, exist_ok=True)
    with _studio(settings) as client:
        dataset = _upload(client)
        job = _train(client, dataset["id"], minutes)
        name = job["request"]["name"]
        _save_contact_sheet(client, name, out / "contact-sheet.png")
        _save_growth(client, job["id"], out / "growth.png")
    console.print(f"The pictures: {out / 'contact-sheet.png'}\nThe training's growth: {out / 'growth.png'}")


@contextmanager
def _studio(settings: Settings) -> Iterator[httpx.Client]:
    """A studio with a client for it, on a free port and in a data folder that goes away unless the settings say."""
    kept = "data" in settings.model_fields_set
    folder = settings.data if kept else Path(tempfile.mkdtemp(prefix="ganvas-demo-"))
    wanted = settings.port if "port" in settings.model_fields_set else 0
    with supervisor.listen(settings.model_copy(update={"host": "127.0.0.1", "port": wanted})) as listener:
        port = listener.getsockname()[1]
    own = {"GANVAS_DATA": str(folder), "GANVAS_HOST": "127.0.0.1", "GANVAS_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "up"], env=os.environ | own, stdout=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_ready(client, process)
            console.print("The studio is up.")
            yield client
    finally:
        process.terminate()
        process.wait()
        if not kept:
            shutil.rmtree(folder)


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise Unavailable("The studio did not start; what it said is above.")


def _upload(client: httpx.Client) -> dict[str, Any]:
    with ARTWORK.open("rb") as archive:
        answer = client.post("/v1/datasets", data={"name": "demo", "resolution": "64"}, files={"files": archive})
    dataset = _read(answer)
    _follow(client, dataset["job"])
    dataset = _read(client.get(f"/v1/datasets/{dataset['id']}"))
    console.print(f"{dataset['count']} pictures are ready. {dataset['readiness']}")
    return dataset


def _train(client: httpx.Client, dataset: str, minutes: float) -> dict[str, Any]:
    body = {
        "dataset": dataset,
        "name": f"demo-{secrets.token_hex(3)}",
        "preset": "tiny",
        "budget": {"minutes": minutes},
    }
    job = _read(client.post("/v1/training/jobs", json=body))
    console.print(f"Training tiny for about {minutes:g} minutes.")
    job = _follow(client, job["id"])
    console.print(job["message"])
    return job


def _follow(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """Print a job's messages until it ends; Unavailable with its reason unless it succeeded."""
    told = ""
    while True:
        job = _read(client.get(f"/v1/jobs/{job_id}"))
        if job["message"] != told and job["status"] == "running":
            told = job["message"]
            console.print(f"  {told}")
        if job["status"] == "succeeded":
            return job
        if job["status"] in {"failed", "canceled"}:
            raise Unavailable(f"The {job['kind']} job {job['status']}: {job['message']}")
        time.sleep(2)


def _save_contact_sheet(client: httpx.Client, model: str, place: Path) -> None:
    """64 pictures of seeds 0-63, asked for one URL at a time."""
    pictures = [
        Image.open(io.BytesIO(_bytes(client.get(f"/v1/models/{model}/image", params={"seed": seed}))))
        for seed in range(64)
    ]
    side = pictures[0].width
    sheet = Image.new("RGB", (8 * side, 8 * side), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % 8 * side, index // 8 * side))
    sheet.save(place)


def _save_growth(client: httpx.Client, job_id: str, place: Path) -> None:
    """The sample sheets of the same seeds, one below the other, in the order they were drawn."""
    samples = _read(client.get(f"/v1/jobs/{job_id}/samples"))["data"]
    sheets = [Image.open(io.BytesIO(_bytes(client.get(sample["url"])))) for sample in samples]
    growth = Image.new("RGB", (max(sheet.width for sheet in sheets), sum(sheet.height for sheet in sheets)), "white")
    top = 0
    for sheet in sheets:
        growth.paste(sheet, (0, top))
        top += sheet.height
    growth.save(place)


def _read(answer: httpx.Response) -> dict[str, Any]:
    _check(answer)
    body: dict[str, Any] = answer.json()
    return body


def _bytes(answer: httpx.Response) -> bytes:
    _check(answer)
    return answer.content


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        raise Unavailable(
            f"{answer.request.method} {answer.request.url.path} answered {answer.status_code}: {answer.text}"
        )
