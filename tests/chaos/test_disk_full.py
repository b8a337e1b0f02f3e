"""A disk that is full in the middle of anything costs nothing that was there, and the studio goes on when there is room
again: for its blobs, its database, its Redis and its temporary files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.conftest import Figures
from tests.chaos.filling import DISKS, HEAL_SECONDS

NAMESPACES = (["unshare", "--user", "--map-root-user", "--mount"], ["unshare", "--mount"])
TRIAL = "mkdir -p {0} && mount -t tmpfs -o size=1m tmpfs {0}"


def mounting(folder: Path) -> list[str]:
    """The command before ours that lets it mount small disks which nobody else sees, and which go with it."""
    for namespace in NAMESPACES:
        trial = [*namespace, "sh", "-c", TRIAL.format(folder / "trial")]
        try:
            if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
                return namespace
        except FileNotFoundError:
            break
    return pytest.skip("no disk can be mounted here: neither user namespaces nor root's own are allowed")


def test_full_disks_damage_nothing_and_the_studio_goes_on_when_there_is_room(
    tmp_path: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    count = rounds(1, 20)
    command = [*mounting(tmp_path), sys.executable, "-m", "tests.chaos.filling", str(tmp_path / "studio"), str(count)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-5_000:]
    found = json.loads(ran.stdout)
    slowest = {name: max(seconds) for name, seconds in found["took"].items()}
    figures.add(
        f"Disk full at {len(DISKS)} places x {count}: {len(found['corrupt'])} corrupt files, goes on after at most "
        f"{max(slowest.values()):.1f} s ({', '.join(f'{name} {seconds} s' for name, seconds in slowest.items())}); "
        f"{found['accepted']} jobs accepted meanwhile, {len(found['failed'])} of them failed."
    )
    assert found["corrupt"] == []
    assert found["wrong"] == []
    assert found["failed"] == []
    assert max(slowest.values()) <= HEAL_SECONDS
    assert any(said.endswith(" 507") for said in found["said"])
    assert (found["exit"], found["doctor"]) == (0, 0), found["doctor_said"]
