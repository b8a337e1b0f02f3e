"""A server that says that it is about to leave, serves on while balancers take note, and then ends as uvicorn does."""

import threading
import time
from types import FrameType
from typing import Final

import uvicorn

HANG_UP: Final = (b"connection", b"close")  # every answer of the notice is the last one of its connection


class DrainingServer(uvicorn.Server):
    """uvicorn's server; the first SIGTERM begins a notice of some seconds, a second one ends it."""

    def __init__(self, config: uvicorn.Config, leaving: threading.Event, notice_seconds: float) -> None:
        super().__init__(config)
        self._leaving = leaving  # /readyz says 503 while it is set
        self._notice_seconds = notice_seconds
        self._ends_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """In a signal handler: note it, and no more."""
        if self._leaving.is_set() or self._notice_seconds <= 0:
            self._leaving.set()
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._ends_at = time.monotonic() + self._notice_seconds
        self._leaving.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop taking requests."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self.should_exit = True
        stops = await super().on_tick(counter)  # which renews the headers of every answer
        if self._leaving.is_set() and HANG_UP not in self.server_state.default_headers:
            self.server_state.default_headers = [*self.server_state.default_headers, HANG_UP]
        return stops
