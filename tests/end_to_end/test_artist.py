"""The artist's page works as pasted, from a folder to a loop."""

import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "artist.md").read_text()
BLOCKS = re.findall(r"```sh\n(.+?)```", PAGE, re.S)
SITTING_SECONDS = 240


def paste(blocks: list[str], port: int, folder: Path) -> str:
    """Run all blocks in one shell, as one does who follows the page."""
    script = "set -euo pipefail\n" + "\necho ====\n".join(blocks)
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    done = subprocess.run(
        ["/bin/bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=SITTING_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def side_of(place: Path) -> tuple[int, int]:
    with Image.open(place) as picture:
        return picture.size


def test_the_artists_page_leads_from_a_folder_to_a_loop(start_studio: Callable[..., Any], tmp_path: Path) -> None:
    studio = start_studio(tmp_path / "data")
    for name in ("examples", ".venv"):
        (tmp_path / name).symlink_to(ROOT / name)
    said = paste(BLOCKS, studio.port, tmp_path).split("====\n")
    assert len(said) == len(BLOCKS)

    for name, size in (("first", (64, 64)), ("warm", (512, 512)), ("kept", (512, 512))):
        assert side_of(tmp_path / f"{name}.png") == size
    assert (tmp_path / "warm.png").read_bytes() != (tmp_path / "first.png").read_bytes()
    assert side_of(tmp_path / "sheet.png")[0] > 6 * 128
    assert side_of(tmp_path / "strip.png")[0] > 5 * 128
    with av.open(io.BytesIO((tmp_path / "loop.mp4").read_bytes())) as film:
        (stream,) = film.streams.video
        assert (stream.frames, stream.average_rate, stream.width, stream.height) == (96, 24, 512, 512)
    assert any('"identical":true' in block for block in said)
    (artwork,) = studio.client.get("/v1/artworks", params={"starred": True}).json()["data"]
    assert (artwork["title"], artwork["tags"]) == ("Seven, warm", ["faces"])
    assert len(studio.client.get("/v1/artworks").json()["data"]) == 2  # the picture and the loop
    assert "faces" in json.dumps(studio.client.get("/v1/models").json())
