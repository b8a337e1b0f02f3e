"""How often things are broken, and the figures of a run: CHAOS=full breaks as often as Ganvas claims, short as CI has
time for, and a number such as 0.5 that far from the one to the other."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.studio import Studio

WANTED = os.environ.get("CHAOS", "short")
SHARE = {"short": 0.0, "full": 1.0}[WANTED] if WANTED.isalpha() else float(WANTED)  # of the way from short to full
FULL = SHARE == 1
figures_key = pytest.StashKey[list[str]]()


class Figures:
    """What a run has shown, in lines that are printed at its end."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def add(self, line: str) -> None:
        """One figure, in a sentence."""
        self._lines.append(line)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[figures_key] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures, behind everything else."""
    for line in config.stash[figures_key]:
        terminalreporter.write_line(line)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    """For what a test has counted."""
    return Figures(request.config.stash[figures_key])


@pytest.fixture(scope="session")
def rounds() -> Callable[[int, int], int]:
    """rounds(short, full): how often to do it in this run."""
    return lambda short, full: round(short + SHARE * (full - short))


@pytest.fixture
def start_studio(tmp_path: Path) -> Iterator[Callable[..., Studio]]:
    """start_studio(folder=..., NAME=value ...): starts studios, with settings as environment variables; the test stops
    them, or this does."""
    started: list[Studio] = []

    def start(folder: Path | None = None, **environment: str) -> Studio:
        quiet = {"GANVAS_IMPORT_SAMPLES": "false", "GANVAS_LOG_LEVEL": "warning"}
        started.append(Studio(folder or tmp_path / "data", **quiet | environment))
        return started[-1]

    yield start
    for studio in started:
        if studio.process.poll() is None:
            studio.stop()
