"""HTTP connections as uvicorn serves them, cut off where a client does not keep up."""

import asyncio
import time
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api import errors, headers
from app.api.errors import Answer

HEAD_SECONDS: Final = 10.0  # for all of a request's head, from its first byte or the opening of the connection on
HEAD_MAX_BYTES: Final = 128 * 1024  # the longest recipe in a URL has 32 KiB
BODY_SECONDS: Final = 20.0  # of waiting for a body, over which it is looked at how much came
BODY_MIN_BYTES_PER_SECOND: Final = 1024
UNREAD_MAX_BYTES: Final = 1024 * 1024  # of a body that nobody wants, read so that the client can read the answer
UNREAD_SECONDS: Final = 5.0
STALLED_SECONDS: Final = 60.0  # in which a client must take 48 KiB of an answer, or what is left of it


class PromptConnection(HttpToolsProtocol):
    """Ends a connection whose head comes too slowly or is too long, whose refused body goes on and on, or whose client
    does not take its answer."""

    _timer: TimerHandle | None = None  # of the head, or of a body that nobody wants
    _stalled: TimerHandle | None = None
    _watched: object = None  # the head or the request that the timer and the count are for
    _came = 0  # bytes of it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came. Most requests come in one piece, before their answer, and need no timer."""
        super().data_received(data)
        cycle = self.cycle
        head_is_whole = cycle is not None and cycle.scope is self.scope
        if self._timer is not None or not head_is_whole or (cycle.response_complete and cycle.more_body):
            self._watch(len(data), head_is_whole=head_is_whole)

    def _watch(self, came: int, *, head_is_whole: bool) -> None:
        """Let a head, or the rest of a body that was answered already, take so long and have so many bytes."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # it is a websocket now
            self._stop_timer()
        elif not head_is_whole:
            self._count(self.scope, came, HEAD_SECONDS, self._head_is_late)
            if self._came > HEAD_MAX_BYTES:
                self._refuse(431, f"A request's head may have {HEAD_MAX_BYTES:,} bytes.", code="head_too_large")
        elif self.cycle.response_complete and self.cycle.more_body:
            self._count(self.cycle, came, UNREAD_SECONDS, self.transport.close)
            if self._came > UNREAD_MAX_BYTES:
                self.transport.close()
        else:
            self._stop_timer()

    def _count(self, watched: object, came: int, seconds: float, late: Callable[[], None]) -> None:
        if self._watched is not watched:
            self._stop_timer()
            self._watched, self._came = watched, 0
            self._timer = self.loop.call_later(seconds, late)
        self._came += came

    def pause_writing(self) -> None:
        """The client has not taken what was sent."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """The answer to what is no HTTP, in the one shape that all errors have."""
        self._refuse(400, msg, code="http_invalid")

    def _head_is_late(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # there may be more of it, that we do not look at: answers before it come first
            self._timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        elif self._came:
            self._refuse(408, f"The head of the request was not whole after {HEAD_SECONDS:g} s.", code="head_too_slow")
        else:  # opened in advance by a browser that then had nothing to ask
            self.transport.close()

    def _refuse(self, status: int, message: str, *, code: str) -> None:
        """Answer before there is a request, and go; not in the middle of another answer."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            cycle.disconnected = True  # it is this one's body that is refused: the answer to it is ours
            cycle.message_event.set()
        if cycle is None or cycle.response_complete or cycle.disconnected:
            response = errors.problem("", Answer(status, "invalid_request_error"), message, code)
            headers.complete(response.raw_headers)
            lines = [name + b": " + value + b"\r\n" for name, value in response.raw_headers]
            head = [STATUS_LINE[status], *lines, b"connection: close\r\n\r\n"]
            self.transport.write(b"".join([*head, bytes(response.body)]))
        self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Pace:
    """Receives a body for as long as it keeps coming; the time in which nobody waited for it is the server's own."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waited = 0.0  # seconds, in this window
        self._came = 0  # bytes
        self._whole = False

    async def __call__(self) -> Message:
        """The next of it; 408 where too little of it came."""
        while not self._whole:
            began = time.monotonic()
            try:
                async with asyncio.timeout(BODY_SECONDS - self._waited):
                    message = await self._receive()
            except TimeoutError:
                if self._came < BODY_SECONDS * BODY_MIN_BYTES_PER_SECOND:
                    said = (
                        f"Less than {BODY_MIN_BYTES_PER_SECOND} bytes a second came of the body; the rest is not read."
                    )
                    raise HTTPException(408, said, {"connection": "close"}) from None
                self._waited, self._came = 0.0, 0
                continue
            self._waited += time.monotonic() - began
            self._came += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            return message
        return await self._receive()
