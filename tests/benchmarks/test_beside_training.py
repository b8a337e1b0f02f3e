"""The verdict of benchmarks/beside_training.py, and how it tells its own processes from others."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "beside_training.py"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    spec = importlib.util.spec_from_file_location("beside_training", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "beside_training", module)
    spec.loader.exec_module(module)
    return module


def phases(beside: ModuleType, *, slower: float, kept: float) -> dict[tuple[bool, str], Any]:
    """Pictures took 10 ms when idle and `slower` times that beside a training, which kept this part of its speed."""
    found = {(True, "none"): beside.Phase(seconds=10, images_per_second=[80.0, 120.0])}
    for load in ("light", "heavy"):
        found[False, load] = beside.Phase(milliseconds=[10.0] * 100, seconds=10)
        found[True, load] = beside.Phase(
            milliseconds=[1.0] * 90 + [10 * slower] * 10, seconds=10, images_per_second=[100 * kept]
        )
    return found


@pytest.mark.parametrize(("slower", "kept", "wanted"), [(2.9, 0.6, True), (3.1, 0.6, False), (2.9, 0.4, False)])
def test_both_the_callers_and_the_training_have_to_be_content(
    beside: ModuleType, capsys: pytest.CaptureFixture[str], slower: float, kept: float, wanted: bool
) -> None:
    assert beside.report(phases(beside, slower=slower, kept=kept)) is wanted
    told = capsys.readouterr().out
    assert f"light load: {slower:.2f} times idle" in told
    assert f"light load: {kept:.2f} of its own" in told


@LINUX
def test_what_a_process_and_its_children_spend_is_not_taken_for_somebody_elses(beside: ModuleType) -> None:
    started = time.perf_counter()
    machine, own = beside._machine_seconds(), beside._tree_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    spent = beside._tree_seconds(os.getpid()) - own
    assert 0.25 < spent < 2 + (time.perf_counter() - started)
    assert beside._machine_seconds() - machine >= spent - 0.1
