"""A key is held while its request is at work, and kept only by an answer that is whole; over HTTP: routes/."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.api.idempotency import Idempotency, spoil
from app.core import idempotency
from app.core.db import Database
from app.core.records import IdempotentRequest
from app.core.settings import Settings
from app.core.storage import Storage

KEY = {"idempotency-key": "one"}


@dataclass
class Waiting:
    """A route that counts, waits to be let go, and answers as it is told to."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0
    status: int = 200
    breaks_off: bool = False

    async def __call__(self, request: Request) -> Response:
        """Answer."""
        self.calls += 1
        await self.go.wait()
        return StreamingResponse(self._pieces(), self.status)

    async def _pieces(self) -> AsyncIterator[str]:
        yield f"call {self.calls}"
        if self.breaks_off:
            spoil()
        yield ", whole"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[SimpleNamespace]:
    settings = Settings(data=tmp_path)
    db = Database(settings.database)
    db.migrate()
    yield SimpleNamespace(db=db, storage=Storage(tmp_path / "blobs"), settings=settings)
    db.close()


def client_of(route: Waiting, services: SimpleNamespace) -> httpx.AsyncClient:
    async def endpoint(request: Request) -> Response:
        return await route(request)

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])], middleware=[Middleware(Idempotency)])
    app.state.services = services
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://here")


def rows(services: SimpleNamespace) -> int:
    with services.db.read() as session:
        return int(session.query(IdempotentRequest).count())


def test_a_key_is_held_for_as_long_as_its_request_is_at_work(
    services: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "LOCK_SECONDS", 1.0)
    monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.1)

    async def ask() -> None:
        route = Waiting()
        async with client_of(route, services) as client:
            first = asyncio.create_task(client.post("/", headers=KEY))
            await asyncio.sleep(2.5)
            waiting = await asyncio.wait_for(client.post("/", headers=KEY), 10)
            assert (waiting.status_code, waiting.json()["error"]["code"]) == (409, "idempotency_in_flight")
            route.go.set()
            assert (await first).text == "call 1, whole"
            again = await client.post("/", headers=KEY)
            assert (again.text, again.headers["idempotency-replayed"], route.calls) == ("call 1, whole", "true", 1)

    asyncio.run(ask())


@pytest.mark.parametrize("status", [408, 409, 422, 429, 500, 503, 507])
def test_a_failure_leaves_the_key_free(services: SimpleNamespace, status: int) -> None:
    async def ask() -> None:
        route = Waiting(status=status)
        route.go.set()
        async with client_of(route, services) as client:
            assert (await client.post("/", headers=KEY)).status_code == status
            assert rows(services) == 0
            route.status = 201
            assert (await client.post("/", headers=KEY)).text == "call 2, whole"
            assert (await client.post("/", headers=KEY)).text == "call 2, whole"

    asyncio.run(ask())


def test_an_answer_that_breaks_off_is_not_told_again(services: SimpleNamespace) -> None:
    async def ask() -> None:
        route = Waiting(breaks_off=True)
        route.go.set()
        async with client_of(route, services) as client:
            assert (await client.post("/", headers=KEY)).text == "call 1, whole"
            assert (await client.post("/", headers=KEY)).text == "call 2, whole"
        assert rows(services) == 0

    asyncio.run(ask())


def test_what_nobody_foresaw_leaves_the_key_free(services: SimpleNamespace) -> None:
    class Broken(Waiting):
        async def __call__(self, request: Request) -> Response:
            self.calls += 1
            if self.calls == 1:
                raise RuntimeError
            return PlainTextResponse("now")

    async def ask() -> None:
        async with client_of(Broken(), services) as client:
            assert (await client.post("/", headers=KEY)).status_code == 500
            assert rows(services) == 0
            assert (await client.post("/", headers=KEY)).text == "now"

    asyncio.run(ask())


def test_a_request_whose_task_is_ended_leaves_the_key_free(services: SimpleNamespace) -> None:
    async def ask() -> None:
        route = Waiting()
        async with client_of(route, services) as client:
            first = asyncio.create_task(client.post("/", headers=KEY))
            while route.calls == 0:
                await asyncio.sleep(0.01)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert rows(services) == 0

    asyncio.run(ask())
