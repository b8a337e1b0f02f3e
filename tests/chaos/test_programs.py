"""The programs that break serving and training for hours, each in its short form."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str, *options: str) -> str:
    """What a program of benchmarks/ printed; it must succeed."""
    command = [sys.executable, ROOT / "benchmarks" / program, *options]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_a_storm_leaves_no_caller_without_an_answer_and_nothing_waiting() -> None:
    said = run("serving_storm.py", "--drops", "60", "--minutes", "0.1", "--callers", "6")
    assert "'dropped': 60" in said
    assert "'deleted': 2" in said
    assert "\n0 faults" in said


def test_recipes_asked_for_together_while_checkpoints_come_and_go_give_the_files_they_give_alone() -> None:
    said = run("determinism.py", "--recipes", "200", "--clients", "16")
    assert "200 recipes" in said
    assert " 0 different" in said


def test_trainings_killed_at_random_moments_and_resumed_end_with_the_weights_of_one_that_never_was() -> None:
    assert "2 of 2 killed and resumed trainings" in run("resume_kills.py", "--kills", "2", "--kimg", "0.08")
