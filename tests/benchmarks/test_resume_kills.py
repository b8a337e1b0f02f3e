import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_trainings_killed_at_random_moments_and_resumed_end_with_the_weights_of_one_that_never_was() -> None:
    program = [sys.executable, ROOT / "benchmarks" / "resume_kills.py", "--kills", "2", "--kimg", "0.08"]
    said = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "2 of 2 killed and resumed trainings" in said.stdout
