"""What a name means is looked up once for many, and not remembered for long."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from app.api import directory
from app.api.directory import ModelDirectory
from app.core import catalogue, latents
from app.core.errors import NotFound
from app.core.settings import Settings
from app.serving.runtime import Runtime

RUNTIME = Runtime("cpu", "float32")


@pytest.fixture
def questions(app: Any) -> Iterator[list[str]]:
    """Every statement our side's database is asked."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.append(statement)

    event.listen(app.db.engine, "before_cursor_execute", note)
    yield asked
    event.remove(app.db.engine, "before_cursor_execute", note)


def test_a_hundred_at_once_are_one_look_up_and_the_next_need_none(app: Any, questions: list[str]) -> None:
    async def ask() -> None:
        models = ModelDirectory(app.settings, app.db, app.storage, RUNTIME)
        await models.resolve("tiny")
        once = len(questions)
        models.forget()
        questions.clear()
        found = await asyncio.gather(*(models.resolve("tiny") for _ in range(100)))
        assert len(set(found)) == 1
        assert len(questions) == once
        await models.resolve("tiny")
        assert len(questions) == once

    asyncio.run(ask())


def test_what_another_process_publishes_is_seen_after_a_moment(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "REMEMBERED_SECONDS", 0.05)
    first, second = app.publish("moving", seed=1, kimg=1), app.publish("moving", seed=2, kimg=2)

    async def ask() -> None:
        models = ModelDirectory(app.settings, app.db, app.storage, RUNTIME)
        assert (await models.resolve("moving")).checkpoint == second
        with app.db.begin() as session:
            catalogue.promote(session, "moving", first)
        await asyncio.sleep(0.1)
        assert (await models.resolve("moving")).checkpoint == first

    asyncio.run(ask())


def test_a_name_that_means_nothing_is_asked_again_every_time(app: Any) -> None:
    async def ask() -> None:
        models = ModelDirectory(app.settings, app.db, app.storage, RUNTIME)
        with pytest.raises(NotFound):
            await models.resolve("later")
        app.publish("later", seed=3)
        assert (await models.resolve("later")).model == "later"

    asyncio.run(ask())


def test_a_caller_who_leaves_takes_nobody_elses_answer_along(app: Any) -> None:
    async def ask() -> None:
        models = ModelDirectory(app.settings, app.db, app.storage, RUNTIME)
        left, stayed = (asyncio.create_task(models.resolve("tiny")) for _ in range(2))
        await asyncio.sleep(0)
        left.cancel()
        assert (await stayed).model == "tiny"

    asyncio.run(ask())


def test_an_alias_yields_to_a_model_of_that_name(app: Any) -> None:
    settings = Settings(data=app.settings.data, default_model="tiny", model_aliases={"dall-e-9": "", "art": "tiny"})

    async def ask(*names: str) -> list[str]:
        models = ModelDirectory(settings, app.db, app.storage, RUNTIME)
        return [(await models.resolve(name)).model for name in names]

    assert asyncio.run(ask("dall-e-9", "art")) == ["tiny", "tiny"]
    app.publish("art", seed=4)
    assert asyncio.run(ask("art")) == ["art"]


def test_without_a_default_the_newest_model_is_meant(app: Any) -> None:
    app.publish("newest", seed=5)
    models_settings = Settings(data=app.settings.data)

    async def ask() -> str:
        return (await ModelDirectory(models_settings, app.db, app.storage, RUNTIME).resolve(None)).model

    assert asyncio.run(ask()) == "newest"


def test_where_what_a_name_means_is_lost_the_newest_whole_checkpoint_stands_in(app: Any) -> None:
    oldest, before, newest = (app.publish("worn", seed=seed, kimg=seed) for seed in (1, 2, 3))

    async def ask(reference: str) -> str:
        return (await ModelDirectory(app.settings, app.db, app.storage, RUNTIME).resolve(reference)).checkpoint

    app.storage.path(newest).write_bytes(b"damaged")
    assert asyncio.run(ask("worn")) == before
    assert asyncio.run(ask(f"worn@{newest}")) == newest  # who names it is told that it is damaged
    app.storage.delete(before)
    assert asyncio.run(ask("worn")) == oldest
    app.storage.delete(oldest)
    assert asyncio.run(ask("worn")) == newest


def test_stored_latents_are_looked_up_once_and_only_those_that_are_listed_pass(app: Any, questions: list[str]) -> None:
    listed, unlisted = (latents.store(app.storage, np.full((4, 16), value, np.float32)) for value in (1, 2))
    with app.db.begin() as session:
        latents.keep(session, app.storage, listed, (4, 16))

    async def ask() -> None:
        models = ModelDirectory(app.settings, app.db, app.storage, RUNTIME)
        await models.require_latents([listed])
        questions.clear()
        await models.require_latents([listed, listed])
        await models.require_latents([])
        assert questions == []
        for _ in range(2):
            with pytest.raises(NotFound, match=unlisted[:12]):
                await models.require_latents([listed, unlisted])

    asyncio.run(ask())
