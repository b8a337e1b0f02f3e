"""Websockets as uvicorn serves them, with less kept for those who do not read."""

import contextlib
import socket
from asyncio import BaseTransport, Transport
from typing import Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_MESSAGE_BYTES: Final = 64 * 1024  # of a live message; the largest recipe has half of that
UNSENT_BYTES: Final = 16 * 1024  # that the kernel holds for a reader: what is there cannot be replaced by a newer frame


class FreshSockets(WebSocketsSansIOProtocol):
    """Says that it cannot be written to as soon as the peer falls behind, and drops a peer that takes nothing."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep no more than the frame that is under way."""
        super().connection_made(transport)
        cast(Transport, transport).set_write_buffer_limits(high=0)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # it is gone already
                peer = transport.get_extra_info("socket")
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def run_asgi(self) -> None:
        """Serve; at the end what the peer did not take is dropped with it, where uvicorn would wait for it."""
        await super().run_asgi()
        if not self.writable.is_set():
            self.transport.abort()
