"""A start is timed from the beginning of its process to its pictures."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "startup.py"


@pytest.fixture
def startup(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    return importlib.import_module("startup")


def test_a_server_is_timed_until_its_pictures_are_here(startup: ModuleType, tmp_path: Path) -> None:
    startup.studio.publish(tmp_path, startup.MODEL, startup.studio.untrained("tiny", 32))
    timed = startup.start(tmp_path)

    assert 0.1 < timed.listening < timed.first_picture < startup.START_SECONDS
    assert 0 < timed.second_picture < timed.listening
    assert timed.processor > 0.1
