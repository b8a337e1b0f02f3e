"""`ganvas train FOLDER` trains from the terminal, without a studio, through the same jobs."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from app.core import catalogue
from app.core.db import Database
from app.core.settings import Settings


def test_a_folder_is_trained_on_from_the_terminal(shapes_archive: Callable[..., bytes], tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(shapes_archive())) as archive:
        archive.extractall(tmp_path / "shapes")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GANVAS_")}
    environment |= {"GANVAS_DATA": str(tmp_path / "data"), "GANVAS_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "train",
        str(tmp_path / "shapes"),
        "--minutes",
        "0.1",
        "--resolution",
        "32",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "48 pictures" in done.stderr
    assert "checkpoint" in done.stderr

    db = Database(Settings(data=tmp_path / "data").database)
    with db.read() as session:
        found = catalogue.resolve(session, "shapes")
    db.close()
    assert found.checkpoint.kimg > 0
