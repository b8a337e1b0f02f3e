"""One delivery of a webhook: signed, sent to an address that was looked at, and little of the answer read."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import httpcore
from pydantic_core import to_json
from standardwebhooks import Webhook

from app.core.webhooks import Delivery
from app.webhooks.addresses import Destination

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0  # for the head of the answer; receivers are asked to answer first and work then
REST_SECONDS: Final = 2.0  # for as much of the body as is read
LARGEST_ANSWER_BYTES: Final = 64 * 1024
TIMEOUTS: Final = {"connect": CONNECT_SECONDS, "read": ANSWER_SECONDS, "write": ANSWER_SECONDS, "pool": CONNECT_SECONDS}


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were looked at, whatever the name says by now; TLS and Host keep the name."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one."""
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")


def sign(delivery: Delivery) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a message, signed as of now. Standard Webhooks, https://www.standardwebhooks.com."""
    now = datetime.now(UTC)
    body = to_json(delivery.payload, inf_nan_mode="null")
    headers = {
        "content-type": "application/json",
        "user-agent": "Ganvas",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(delivery.secret).sign(delivery.id, now, body.decode()),
    }
    return headers, body


async def post(
    where: Destination, addresses: Sequence[str], headers: dict[str, str], body: bytes, context: ssl.SSLContext
) -> int:
    """Send a body to one of these addresses, and the status of the answer; it is not followed anywhere.

    Raises httpcore's errors, and TimeoutError after CONNECT_SECONDS + ANSWER_SECONDS + REST_SECONDS.
    """
    url = httpcore.URL(scheme=where.scheme, host=where.host, port=where.port, target=where.target)
    sent = [("host", where.authority), ("accept", "*/*"), *headers.items()]
    async with (
        asyncio.timeout(CONNECT_SECONDS + ANSWER_SECONDS + REST_SECONDS),
        httpcore.AsyncConnectionPool(ssl_context=context, network_backend=_Pinned(addresses)) as pool,
        pool.stream("POST", url, headers=sent, content=body, extensions={"timeout": TIMEOUTS}) as answer,
    ):
        await _read_a_little(answer)
        return answer.status


async def _read_a_little(answer: httpcore.Response) -> None:
    """Hear the receiver out, as long as that is short: its status has been heard, whatever becomes of the rest."""
    heard = 0
    with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        async with asyncio.timeout(REST_SECONDS):
            async for part in answer.aiter_stream():
                heard += len(part)
                if heard >= LARGEST_ANSWER_BYTES:
                    return
