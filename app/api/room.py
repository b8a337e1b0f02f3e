"""Refuses what would be kept while the disk is all but full, before any of it is read; drawing and reading go on."""

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import errors
from app.core import space
from app.core.errors import GanvasError
from app.core.settings import Settings

# What begins a job, uploads something, or keeps it. Canceling, deleting and changing what is there make no file.
KEEPING: Final = re.compile(
    "/v1/(datasets|training/jobs|renders|artworks|models|models/[^/]+/(directions|blend)|jobs/[^/]+/(resume|branch))"
)


class Room:
    """Answers 507 with the figures where a POST would keep something and there is too little room."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["method"] == "POST" and KEEPING.fullmatch(scope["path"]):
            try:
                space.require_room(self._settings, _declared(scope))
            except GanvasError as error:
                await errors.answer(scope["path"], error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _declared(scope: Scope) -> int:
    """The length of the body, bytes; 0 where it is not said."""
    told = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(told) if told.isdigit() else 0
