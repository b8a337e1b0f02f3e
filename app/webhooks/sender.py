"""The sender of webhooks: takes what is owed from the database and keeps at it until it is told or given up."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

import httpcore
import httpx
import structlog

from app.core import webhooks
from app.core.db import Database
from app.core.webhooks import RETRY_SECONDS, Delivery
from app.webhooks.addresses import Resolve, WebhookRefused, destination, require_public, resolve
from app.webhooks.delivery import post, sign

log = structlog.get_logger(__name__)

Outcome = Literal["told", "failed", "given_up"]

POLL_SECONDS: Final = 0.25  # a message leaves at most this late
AWAY_SECONDS: Final = 5.0  # until a database that did not answer is asked again
AT_ONCE: Final = 16  # deliveries under way
RESOLVE_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 3600.0
SHOWN_CHARACTERS: Final = 200  # of an error that may repeat what the receiver said
NETWORK_ERRORS: Final = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


class Sender:
    """Tells receivers what they are owed. Any number of them may share a database: each message has one sender."""

    def __init__(
        self,
        db: Database,
        listed: Collection[str],
        count: Callable[[Outcome], None],
        *,
        resolve: Resolve = resolve,
        waits: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        """listed: hosts that need not be public. waits: seconds between the attempts at one message."""
        self._db = db
        self._listed = listed
        self._count = count
        self._resolve = resolve
        self._waits = waits
        self._context = httpx.create_ssl_context()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._swept = 0.0

    async def run(self) -> None:
        """Send what falls due, until canceled; what is then under way goes back at once."""
        try:
            while True:
                try:
                    await self._begin()
                except Exception:
                    log.exception("webhooks_not_sent")  # a database that is away for a while must not end this
                    await asyncio.sleep(AWAY_SECONDS)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            await self._let_go()

    async def _begin(self) -> None:
        for delivery in await asyncio.to_thread(self._take, AT_ONCE - len(self._under_way)):
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way[delivery.id] = task

    def _take(self, most: int) -> list[Delivery]:
        if time.monotonic() - self._swept > SWEEP_SECONDS or not self._swept:
            with self._db.begin() as session:
                webhooks.sweep(session)
            self._swept = time.monotonic()
        with self._db.read() as session:
            if most < 1 or not webhooks.due(session):
                return []
        with self._db.begin() as session:
            return webhooks.take(session, most)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            reason = await self._attempt(delivery)
            await asyncio.to_thread(self._settle, delivery, reason)
        except Exception:
            log.exception("webhook_not_settled", job=delivery.job_id)  # its hold ends by itself, and it is tried again
        finally:
            self._under_way.pop(delivery.id, None)

    async def _attempt(self, delivery: Delivery) -> str | None:
        """Why a message was not accepted; None where it was."""
        try:
            status = await self._post(delivery)
        except WebhookRefused as error:
            return error.message
        except TimeoutError:
            return "The receiver did not answer in time."
        except NETWORK_ERRORS as error:
            return f"The receiver could not be reached: {type(error).__name__}: {str(error)[:SHOWN_CHARACTERS]}"
        except Exception as error:
            log.exception("webhook_broke", job=delivery.job_id)
            return f"The attempt broke off: {type(error).__name__}."
        if 300 <= status < 400:
            return f"The receiver answered {status}; redirects are not followed."
        return None if 200 <= status < 300 else f"The receiver answered {status}."

    async def _post(self, delivery: Delivery) -> int:
        where = destination(delivery.url, self._listed)
        async with asyncio.timeout(RESOLVE_SECONDS):
            addresses = await self._resolve(where.host, where.port)
        require_public(where, addresses)
        headers, body = sign(delivery)
        return await post(where, addresses, headers, body, self._context)

    def _settle(self, delivery: Delivery, reason: str | None) -> None:
        about = {"job": delivery.job_id, "message": delivery.id, "type": delivery.type, "attempt": delivery.attempt}
        with self._db.begin() as session:
            if reason is None:
                webhooks.told(session, delivery.id)
                again = False
            else:
                again = webhooks.failed(session, delivery.id, reason, self._waits)
        if reason is None:
            self._count("told")
            log.debug("webhook_told", **about)
        else:
            self._count("failed" if again else "given_up")
            log.warning("webhook_failed", **about, reason=reason, tried_again=again)

    async def _let_go(self) -> None:
        under_way = dict(self._under_way)
        for task in under_way.values():
            task.cancel()
        await asyncio.gather(*under_way.values(), return_exceptions=True)
        if under_way:
            with contextlib.suppress(Exception):  # where the database is away, their hold ends by itself
                await asyncio.to_thread(self._put_back, list(under_way))

    def _put_back(self, ids: list[str]) -> None:
        with self._db.begin() as session:
            webhooks.put_back(session, ids)
