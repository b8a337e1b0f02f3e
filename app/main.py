"""Builds the FastAPI application; nothing is built at import."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from app.api import errors
from app.api.access import Gate
from app.api.deps import Services
from app.api.directory import ModelDirectory
from app.api.lean import Lean
from app.api.metrics import Metrics
from app.api.middleware import Admission, BodyLimit, RequestContext
from app.api.routes import LEAN_ROUTES, ROUTERS
from app.core.db import Database
from app.core.errors import GanvasError
from app.core.queue import Dispatcher
from app.core.settings import MIB, Settings
from app.core.storage import Storage
from app.serving.live import Stage
from app.serving.service import Painter

log = structlog.get_logger(__name__)

RECONCILE_SECONDS: Final = 3.0
NO_TELEMETRY: Final = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False)


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens what it needs when it starts, and closes it when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Ganvas",
        summary="A self-hosted GAN art studio.",
        version="1",
        openapi_url="/v1/openapi.json",
        redoc_url=None,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
        middleware=[
            Middleware(RequestContext),
            Middleware(Admission),
            Middleware(BodyLimit, upload_max_bytes=settings.max_upload_mib * MIB),
            Middleware(Lean, routes=LEAN_ROUTES),
        ],
    )
    errors.add_handlers(app)
    app.router.routes += LEAN_ROUTES  # for the documentation; requests are served before they come here
    for router in ROUTERS:
        app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def _services(settings: Settings) -> AsyncIterator[Services]:
    async with contextlib.AsyncExitStack() as stack:
        db = Database(settings.database)
        stack.callback(db.close)
        await asyncio.to_thread(db.migrate)
        storage = Storage(settings.data / "blobs", settings.storage_url)
        dispatcher = Dispatcher(db, settings.redis)
        stack.callback(dispatcher.close)
        painter = Painter(settings, storage)
        stack.push_async_callback(painter.close)
        stage = Stage(painter, settings.max_live_viewers)
        stack.push_async_callback(stage.close)
        directory = ModelDirectory(settings, db, painter.runtime)
        for work in (_reconcile(dispatcher), _warm(directory, painter)):
            stack.push_async_callback(_stop, asyncio.create_task(work))
        yield Services(
            settings=settings,
            db=db,
            storage=storage,
            dispatcher=dispatcher,
            painter=painter,
            stage=stage,
            directory=directory,
            gate=Gate(settings, db),
            metrics=Metrics(painter.meters.registry),
        )


async def _reconcile(dispatcher: Dispatcher) -> None:
    """Every few seconds, hand silent jobs to new workers and ring for those nobody was told of."""
    while True:
        try:
            await asyncio.to_thread(dispatcher.reconcile)
        except Exception:
            log.exception("reconcile_failed")  # a database that is away for a while must not end this for good
        await asyncio.sleep(RECONCILE_SECONDS)


async def _warm(directory: ModelDirectory, painter: Painter) -> None:
    """Have the default model in memory before it is asked for; where that cannot be, its first caller is told why."""
    with contextlib.suppress(GanvasError):
        served = await directory.resolve(None)
        directory.forget()  # nobody asked yet, and by then it may be another
        await painter.load(served.checkpoint)


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
