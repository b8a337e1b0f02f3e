"""Work that stands still is ended from outside Python; work that goes on is left alone however long it takes."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import ctypes, sys, threading, time
from app.core import jobs
from app.core.db import Database
from worker.watchdog import watched

db = Database(f"sqlite:///{sys.argv[1]}/jobs.sqlite3")
db.migrate()
with db.begin() as session:
    job_id = jobs.submit(session, "train", {"name": "a"}).id
claim = jobs.claim(db, job_id, threading.Event())

def stand_still(seconds):
    time.sleep(seconds)

with watched(claim, 1 / 60):
    {work}
claim.release()
print("done")
"""


def run(work: str, folder: Path) -> subprocess.CompletedProcess[str]:
    script = SCRIPT.replace("{work}", work)
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "work",
    ["stand_still(50)", "ctypes.PyDLL(None).sleep(50)"],
    ids=["a thread that waits for ever", "C code that keeps the interpreter to itself"],
)
def test_work_without_a_sign_of_life_is_ended_and_the_log_says_where_it_stood(work: str, tmp_path: Path) -> None:
    ended = run(work, tmp_path)
    assert ended.returncode == 1
    assert "done" not in ended.stdout
    assert 'File "<string>"' in ended.stderr


def test_work_that_gives_signs_of_life_may_take_as_long_as_it_likes(tmp_path: Path) -> None:
    ended = run("[(time.sleep(0.1), claim.should_stop()) for _ in range(25)]", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("done\n")
