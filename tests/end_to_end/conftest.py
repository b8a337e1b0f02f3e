"""Studios for whole stories: see tests/studio.py."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.studio import Studio, draw_shapes


@pytest.fixture
def shapes_archive() -> Callable[..., bytes]:
    """Makes zips of small shapes."""
    return draw_shapes


@pytest.fixture(scope="session")
def start_studio() -> Iterator[Callable[..., Studio]]:
    """Starts studios; the test stops them or this does."""
    started: list[Studio] = []

    def start(folder: Path, **environment: str) -> Studio:
        started.append(Studio(folder, **{"GANVAS_IMPORT_SAMPLES": "false"} | environment))
        return started[-1]

    yield start
    for studio in started:
        if studio.process.poll() is None:
            studio.stop()


@pytest.fixture(scope="session")
def studio(start_studio: Callable[..., Studio], tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """One studio for tests that leave it running."""
    return start_studio(tmp_path_factory.mktemp("studio") / "data")


@pytest.fixture(scope="session")
def dataset(studio: Studio) -> str:
    """A ready dataset of 48 small shapes in it."""
    return studio.upload()
