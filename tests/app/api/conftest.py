"""For tests of keys: an application that others could reach, and keys for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core import keys
from app.core.settings import Settings


@pytest.fixture(scope="session")
def public(start_app: Callable[[Settings], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An application whose settings say that others can reach it; its Redis does not run."""
    data: Path = tmp_path_factory.mktemp("public")
    settings = Settings(
        host="0.0.0.0",  # noqa: S104
        data=data,
        threads=1,
        max_batch=2,
        max_queued_jobs=3,
        max_live_viewers=4,
    )
    with start_app(settings) as running:
        running.publish("tiny")
        running.publish("other", seed=1)
        yield running


@pytest.fixture(scope="session")
def make_key() -> Callable[..., str]:
    """Make a key for an application, as app/core/keys.py does; the key itself."""

    def make(running: Any, *scopes: str, **limits: Any) -> str:
        with running.db.begin() as session:
            return keys.create(session, "test", list(scopes), **limits)[1]

    return make
