"""The main job from end to end: artwork in, a GAN trained on it, the same pictures out before and after a restart."""

import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

RECIPES = 200
TOGETHER = 32  # callers at once


def test_artwork_goes_in_a_model_is_trained_and_its_pictures_come_out(
    start_studio: Callable[..., Any], tmp_path: Path
) -> None:
    studio = start_studio(tmp_path / "data")
    dataset = studio.upload()
    shown = studio.client.get(f"/v1/datasets/{dataset}").json()
    assert (shown["status"], shown["count"], shown["labels"]) == ("ready", 48, ["disc", "square"])
    assert sum(shown["verdicts"].values()) == 48

    job = studio.start_training(dataset, minutes=0.3, name="shapes")
    studio.wait_for(lambda: len(studio.snapshots(job)) > 0)
    assert studio.job(job)["status"] == "running"
    early = studio.picture("shapes", seed=7)  # servable from its first snapshot, while it still trains
    assert Image.open(io.BytesIO(early)).size == (32, 32)

    ended = studio.finish(job)
    assert (ended["status"], ended["progress"], ended["attempts"]) == ("succeeded", 1.0, 1)
    ticks = [event["data"] for event in studio.events(job) if event["type"] == "tick"]
    assert ticks[-1]["kimg"] > 0
    assert all(earlier["kimg"] <= later["kimg"] for earlier, later in itertools.pairwise(ticks))
    samples = studio.client.get(f"/v1/jobs/{job}/samples").json()["data"]
    assert len(samples) == len(studio.snapshots(job)) >= 2
    assert Image.open(io.BytesIO(studio.client.get(samples[0]["url"]).content)).format == "PNG"

    model = studio.client.get("/v1/models/shapes").json()
    pinned = f"shapes@{model['checkpoint'][:12]}"
    alone = [studio.picture(pinned, seed) for seed in range(RECIPES)]
    assert len(set(alone)) == RECIPES
    with ThreadPoolExecutor(TOGETHER) as callers:
        together = list(callers.map(lambda seed: studio.picture(pinned, seed), range(RECIPES)))
    assert together == alone
    assert studio.stop() == 0

    again = start_studio(tmp_path / "data")
    assert [again.picture(pinned, seed) for seed in range(RECIPES)] == alone


def test_a_canceled_training_keeps_its_last_checkpoint(studio: Any, dataset: str) -> None:
    job = studio.start_training(dataset, minutes=10, name="canceled")
    studio.wait_for(lambda: len(studio.snapshots(job)) > 0)
    assert studio.client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert studio.finish(job)["status"] == "canceled"
    assert studio.picture("canceled", seed=1)


def test_sigterm_drains_and_leaves_nothing_running(start_studio: Callable[..., Any], tmp_path: Path) -> None:
    studio = start_studio(tmp_path / "data")
    job = studio.start_training(studio.upload(), minutes=10, name="drained")
    studio.wait_for(lambda: len(studio.snapshots(job)) > 0)
    processes = studio.processes()
    assert len(processes) >= 5  # Redis, two workers, a horse, the API
    assert studio.stop() == 0
    psutil.wait_procs(processes, timeout=5)
    assert [process for process in processes if process.is_running()] == []
