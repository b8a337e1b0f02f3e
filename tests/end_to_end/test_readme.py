"""The shell lines of the README work as pasted, in their order, on a studio with its samples."""

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.+?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.fixture
def sampled_studio(start_studio: Callable[..., Any], tmp_path: Path) -> Any:
    return start_studio(tmp_path / "data", GANVAS_IMPORT_SAMPLES="true")


def paste(studio: Any, block: str, folder: Path) -> str:
    """Run a block as one pastes it, but for the port; every line must succeed."""
    script = "set -euo pipefail\n" + block.replace("127.0.0.1:8000", f"127.0.0.1:{studio.port}").replace(
        "curl ", "curl --fail-with-body "
    )
    command = ["/bin/bash", "-c", script]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_lines_of_the_readme_work_as_pasted(sampled_studio: Any, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    one, nine, prompted, proof, loop, search, directions, upload, training = BLOCKS
    paste(sampled_studio, one, tmp_path)
    assert Image.open(io.BytesIO((tmp_path / "42.png").read_bytes())).size == (64, 64)
    paste(sampled_studio, nine, tmp_path)
    with zipfile.ZipFile(tmp_path / "nine.zip") as archive:
        assert len(archive.namelist()) == 9
        assert {Image.open(io.BytesIO(archive.read(name))).format for name in archive.namelist()} == {"PNG"}
    drawn = json.loads(paste(sampled_studio, prompted, tmp_path))
    assert (drawn["matched_terms"], drawn["unknown_terms"]) == (["red", "heart"], [])
    assert drawn["data"][0]["seed"] in range(1, 9)  # the best of eight
    assert json.loads(paste(sampled_studio, proof, tmp_path))["identical"] is True
    for drawing in (loop, directions):
        (job,) = set(re.findall(r"job_[0-9a-f]{24}", paste(sampled_studio, drawing, tmp_path)))
        assert sampled_studio.finish(job)["status"] == "succeeded"
    assert "sefa-0" in sampled_studio.client.get("/v1/models/emoji").json()["directions"]
    (job,) = set(re.findall(r"job_[0-9a-f]{24}", paste(sampled_studio, search, tmp_path)))
    assert sampled_studio.job(job)["kind"] == "project"
    assert sampled_studio.client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    sent = paste(sampled_studio, upload, tmp_path)
    (preparing,) = set(re.findall(r"job_[0-9a-f]{24}", sent))
    assert sampled_studio.finish(preparing)["status"] == "succeeded"
    told = paste(sampled_studio, training, tmp_path)
    (job,) = set(re.findall(r"job_[0-9a-f]{24}", told))
    assert sampled_studio.job(job)["request"]["name"] == "mine"
