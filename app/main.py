"""Builds the FastAPI application; nothing is built at import."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Final

import structlog
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware

from app.api import documenting, errors
from app.api.access import Gate
from app.api.deps import Services
from app.api.directory import ModelDirectory
from app.api.idempotency import Idempotency
from app.api.lean import Lean
from app.api.limiting import Limiter
from app.api.metrics import Metrics
from app.api.middleware import Admission, BodyLimit, RequestContext
from app.api.room import Room
from app.api.routes import LEAN_ROUTES, ROUTERS
from app.core import retention
from app.core.db import Database
from app.core.errors import GanvasError
from app.core.queue import Dispatcher
from app.core.settings import MIB, Settings
from app.core.storage import Storage
from app.serving.live import Stage
from app.serving.service import Painter
from app.webhooks.sender import Sender

log = structlog.get_logger(__name__)

RECONCILE_SECONDS: Final = 3.0
SWEEP_SECONDS: Final = 3600.0
NO_TELEMETRY: Final = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False)


def create_app(settings: Settings, leaving: threading.Event | None = None) -> FastAPI:
    """The application; it opens what it needs when it starts, and closes it when it stops. Once `leaving` is set,
    `/readyz` says that the process is about to stop; requests are served all the same."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _services(settings, leaving or threading.Event()) as services:
            app.state.services = services
            yield

    app = FastAPI(
        title="Ganvas",
        summary="A self-hosted GAN art studio.",
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # that of the framework loads its parts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
        middleware=[
            Middleware(RequestContext),
            Middleware(Admission),
            Middleware(Room, settings=settings),
            Middleware(BodyLimit, upload_max_bytes=settings.max_upload_mib * MIB),
            Middleware(Idempotency),
            Middleware(Lean, routes=LEAN_ROUTES),
        ],
    )
    errors.add_handlers(app, [*LEAN_ROUTES, *(route for router in ROUTERS for route in router.routes)])
    documenting.attach(app)
    app.router.routes += LEAN_ROUTES  # for the documentation; requests are served before they come here
    for router in ROUTERS:
        app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def _services(settings: Settings, leaving: threading.Event) -> AsyncIterator[Services]:
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
        limiter = Limiter(settings)
        stack.push_async_callback(limiter.close)
        directory = ModelDirectory(settings, db, storage, painter.runtime)
        metrics = Metrics(painter.meters.registry)
        sender = Sender(db, settings.webhook_hosts, lambda outcome: metrics.webhooks.labels(outcome).inc())
        for work in (_reconcile(dispatcher), _warm(directory, painter), sender.run(), _sweep(settings, db, storage)):
            stack.push_async_callback(_stop, asyncio.create_task(work))
        yield Services(
            settings=settings,
            leaving=leaving,
            db=db,
            storage=storage,
            dispatcher=dispatcher,
            painter=painter,
            stage=stage,
            directory=directory,
            gate=Gate(settings, db),
            limiter=limiter,
            metrics=metrics,
        )


async def _reconcile(dispatcher: Dispatcher) -> None:
    """Every few seconds, hand silent jobs to new workers and ring for those nobody was told of."""
    while True:
        try:
            await asyncio.to_thread(dispatcher.reconcile)
        except Exception:
            log.exception("reconcile_failed")  # a database that is away for a while must not end this for good
        await asyncio.sleep(RECONCILE_SECONDS)


async def _sweep(settings: Settings, db: Database, storage: Storage) -> None:
    """Once an hour, forget what is not kept for ever."""
    while True:
        try:
            if forgotten := await asyncio.to_thread(retention.sweep, settings, db, storage):
                log.info("swept", **forgotten)
        except Exception:
            log.exception("sweep_failed")  # what it left, the next one finds
        await asyncio.sleep(SWEEP_SECONDS)


async def _warm(directory: ModelDirectory, painter: Painter) -> None:
    """Have the default model in memory before it is asked for; where that cannot be, its first caller is told why."""
    try:
        served = await directory.resolve(None)
        directory.forget()  # nobody asked yet, and by then it may be another
        await painter.load(served.checkpoint)
    except GanvasError as error:
        log.debug("not_warm", reason=str(error))
    except Exception:
        log.exception("warming_failed")  # a fault of ours; the studio serves all the same


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
