"""What routes need, as Annotated dependencies: a signature says all of it."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Query
from starlette.requests import HTTPConnection, Request

from app.api.access import Gate
from app.api.directory import ModelDirectory
from app.api.limiting import Limiter
from app.api.metrics import Metrics
from app.api.paging import Order, Paging
from app.core.callers import Caller
from app.core.db import Database
from app.core.errors import NotAllowed
from app.core.queue import Dispatcher
from app.core.settings import Settings
from app.core.storage import Storage
from app.serving.live import Stage
from app.serving.service import Painter

KeyScope = Literal["generate", "train", "admin"]


@dataclass(frozen=True)
class Services:
    """Everything a running application holds, opened and closed with it."""

    settings: Settings
    leaving: threading.Event  # set once the process is about to stop
    db: Database
    storage: Storage
    dispatcher: Dispatcher
    painter: Painter
    stage: Stage
    directory: ModelDirectory
    gate: Gate
    limiter: Limiter
    metrics: Metrics


def services_of(connection: HTTPConnection) -> Services:
    """What the application that got this request holds."""
    services: Services = connection.app.state.services
    return services


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sent this request."""
    caller: Caller = connection.scope["ganvas.caller"]
    return caller


async def _services(request: Request) -> Services:
    return services_of(request)


async def _paging(
    limit: Annotated[int, Query(ge=1, le=200, description="Most entries in one answer.")] = 50,
    after: Annotated[str | None, Query(max_length=200, description="Entries behind the one with this id.")] = None,
    order: Annotated[Order, Query(description="Oldest first (asc) or newest first (desc).")] = "desc",
) -> Paging:
    return Paging(limit, after, order)


def require(connection: HTTPConnection, scope: KeyScope) -> None:
    """NotAllowed where the key of this request lacks the scope; on loopback everybody has every scope."""
    if scope not in caller_of(connection).scopes:
        raise NotAllowed(f"This key lacks the scope {scope!r}.")


def require_one(connection: HTTPConnection, scopes: Sequence[KeyScope]) -> None:
    """NotAllowed where the key of this request has none of these scopes."""
    if not caller_of(connection).scopes.intersection(scopes):
        raise NotAllowed(f"This key lacks the scope {' or '.join(repr(scope) for scope in scopes)}.")


def allowed(scope: KeyScope) -> Callable[[Request], Awaitable[None]]:
    """A dependency that lets only keys with this scope pass."""

    async def check(request: Request) -> None:
        require(request, scope)

    return check


ServicesDep = Annotated[Services, Depends(_services)]
PagingDep = Annotated[Paging, Depends(_paging)]
MayGenerate = Depends(allowed("generate"))
MayTrain = Depends(allowed("train"))
MayAdminister = Depends(allowed("admin"))
