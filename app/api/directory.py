"""Which checkpoint a model's name means right now, remembered for a moment so that pictures need no database."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy.orm import Session

from app.core import callers, carrying, catalogue, directions, latents
from app.core.catalogue import Resolved
from app.core.db import Database
from app.core.directions import Standing
from app.core.errors import Damaged, GanvasError, NotFound
from app.core.records import Model
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.runtime import Runtime

log = structlog.get_logger(__name__)

REMEMBERED_SECONDS: Final = 1.0  # so long a picture may still come from the checkpoint before the newest
REMEMBERED_NAMES: Final = 1024
REMEMBERED_LATENTS: Final = 16_384


@dataclass(frozen=True)
class Served:
    """Exact weights to draw from; `pinned` tells whether the caller named the checkpoint itself."""

    model: str
    checkpoint: str
    resolution: int
    pinned: bool
    conditional: bool  # draws what a prompt or a label says
    labels: tuple[str, ...]
    vocabulary: tuple[str, ...]
    runtime: Runtime  # what it is painted on here
    directions: Mapping[str, Standing] = field(default_factory=dict, hash=False)  # by name, in the artist's order


@dataclass(frozen=True)
class _Answer:
    """A look-up, begun or done, and until when it holds."""

    task: asyncio.Task[Served]
    until: float


class ModelDirectory:
    """Names, `name@checkpoint`, aliases and the default, to weights. It belongs to one event loop."""

    def __init__(self, settings: Settings, db: Database, storage: Storage, runtime: Runtime) -> None:
        self._settings = settings
        self._db = db
        self._storage = storage
        self._runtime = runtime
        self._answers: dict[str, _Answer] = {}
        self._latents: set[str] = set()  # some of those that are listed

    async def resolve(self, reference: str | None) -> Served:
        """The weights meant by a reference; None or "" is the default model. NotFound where there are none, NotAllowed
        for a caller whose key is for another model."""
        name = reference or ""
        only = callers.current().model
        if only is not None:  # here, for what is remembered is remembered for everybody
            name = only if not name or name in self._settings.model_aliases else name
            callers.require_model(name.partition("@")[0])
        answer = self._answers.get(name)
        if answer is None or answer.until < time.monotonic():
            answer = self._ask(name)
        try:
            # Others may wait for it too; most find it done.
            return answer.task.result() if answer.task.done() else await asyncio.shield(answer.task)
        except GanvasError:
            if self._answers.get(name) is answer:
                del self._answers[name]
            raise

    def forget(self) -> None:
        """Look everything up again: a model was promoted or deleted here, or its directions were changed."""
        self._answers.clear()

    async def require_latents(self, names: Collection[str], param: str = "recipe") -> None:
        """NotFound unless all these stored latents are listed, by sha256; what is listed once is listed for good."""
        unknown = set(names) - self._latents
        if unknown:
            await asyncio.to_thread(self._look_up_latents, unknown, param)
            if len(self._latents) + len(unknown) > REMEMBERED_LATENTS:
                self._latents.clear()
            self._latents |= unknown

    async def directions_now(self, served: Served) -> Mapping[str, Standing]:
        """How directions stand in these weights, not as it is remembered."""
        standing = await asyncio.to_thread(self._look_up_directions, served)
        if standing != served.directions:
            self.forget()
        return standing

    async def carry(self, served: Served) -> None:
        """Have the directions carried over to this checkpoint that nobody has looked for there."""
        await asyncio.to_thread(self._carry, served)

    def _ask(self, name: str) -> _Answer:
        if len(self._answers) >= REMEMBERED_NAMES:
            self._answers.clear()
        task = asyncio.create_task(asyncio.to_thread(self._look_up, name))
        self._answers[name] = answer = _Answer(task, time.monotonic() + REMEMBERED_SECONDS)
        return answer

    def _look_up(self, name: str) -> Served:
        with self._db.read() as session:
            if name in self._settings.model_aliases and session.get(Model, name) is None:
                name = self._settings.model_aliases[name]
            name = name or self._settings.default_model or ""
            if not name:
                newest = catalogue.newest(session)
                if newest is None:
                    message = "There is no model to draw from yet. Train one: POST /v1/training/jobs."
                    raise NotFound(message, code="model_not_found", param="model")
                name = newest.name
            found = catalogue.resolve(session, name)
            if not found.pinned:
                found = self._whole(session, found)
            standing = directions.standings(session, found.model.name, found.checkpoint.sha256)
            return _served(found, self._runtime, standing)

    def _whole(self, session: Session, found: Resolved) -> Resolved:
        """What a bare name means, or where its file is lost the newest checkpoint of the model whose file is not."""
        meant = found.checkpoint.sha256
        if self._is_whole(meant):
            return found
        for row in reversed(catalogue.checkpoints(session, found.model.name)):
            if row.sha256 != meant and self._is_whole(row.sha256):
                log.error("checkpoint_lost", model=found.model.name, checkpoint=meant, stands_in=row.sha256)
                return Resolved(found.model, row, pinned=False)
        return found  # whoever reads it says what is the matter

    def _is_whole(self, sha256: str) -> bool:
        try:
            self._storage.path(sha256)
        except (NotFound, Damaged):
            return False
        return True

    def _look_up_latents(self, names: Collection[str], param: str) -> None:
        with self._db.read() as session:
            latents.require(session, names, param)

    def _look_up_directions(self, served: Served) -> Mapping[str, Standing]:
        with self._db.read() as session:
            return directions.standings(session, served.model, served.checkpoint)

    def _carry(self, served: Served) -> None:
        with self._db.begin() as session:
            carrying.want(session, served.model, served.checkpoint)


def _served(found: Resolved, runtime: Runtime, standing: Mapping[str, Standing]) -> Served:
    return Served(
        model=found.model.name,
        checkpoint=found.checkpoint.sha256,
        resolution=found.model.resolution,
        pinned=found.pinned,
        conditional=found.model.encoder is not None,
        labels=tuple(found.model.labels),
        vocabulary=tuple(found.model.vocabulary),
        runtime=runtime,
        directions=standing,
    )
