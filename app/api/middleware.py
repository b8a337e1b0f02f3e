"""What every request passes through, outermost first: RequestContext, Admission, BodyLimit. Pure ASGI, to stay lean."""

import itertools
import re
import secrets
import time
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import access, cors, errors, headers
from app.api.connections import Pace
from app.api.limiting import RateExceeded
from app.core import callers
from app.core.errors import GanvasError, NotAllowed, TooLarge

log = structlog.get_logger(__name__)
_numbers = itertools.count(1)

CLIENT_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
JSON_BODY_MAX_BYTES: Final = 1024 * 1024
UPLOAD_PATH: Final = "/v1/datasets"
BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SERVED: Final = frozenset({"http", "websocket"})
PROCESS_ID: Final = secrets.token_hex(8)  # opens every id that is given here
MULTIPART_OVERHEAD_BYTES: Final = 16 * 1024 * 1024  # heads of 20,000 parts, beside the files themselves
MODEL_PATH: Final = "/v1/models"
MODEL_MAX_BYTES: Final = 1024 * 1024 * 1024  # several times the largest preset's networks
PICTURE_PATH: Final = "/v1/images/variations"
RENDER_PATH: Final = "/v1/renders"
PROOF_PATH: Final = "/v1/recipes/verify"
PROOF_MAX_BYTES: Final = 256 * 1024 * 1024  # the longest film that is proved, lossless, at half a byte a channel
PICTURE_MAX_BYTES: Final = 16 * 1024 * 1024  # the largest picture as PNG, where every pixel is chance, is 12.6 MB


class RequestContext:
    """Gives a request its id, counts it, and answers 500 for what nobody caught."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in SERVED:
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _request_id(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in cors.ANSWERS:
                status = message.get("status", 0)
                message["headers"].append((b"x-request-id", request_id.encode()))
                headers.complete(message["headers"])
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)  # every request has a context of its own
        if scope["type"] == "websocket":  # it lasts as long as its user likes, and uvicorn closes what broke
            await self.app(scope, receive, send_with_id)
            return
        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.debug("client_left", path=scope["path"])
        except Exception:
            log.exception("request_failed", path=scope["path"])
            if status:
                raise  # too late for an answer: the server must cut the connection
            await errors.internal_error(scope["path"])(scope, receive, send_with_id)
        route = getattr(scope.get("route"), "path", "")
        scope["app"].state.services.metrics.observe(scope["method"], route, status, time.perf_counter() - started)


class Admission:
    """Turns away who may not ask, or not so often, before any of the body is read; says who asks to all behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in SERVED:
            await self.app(scope, receive, send)
            return
        told: cors.HeaderPairs = []  # with the answer, whatever it is
        response: ASGIApp | None
        try:
            response = await _admit(scope, told)
        except GanvasError as error:
            if isinstance(error, RateExceeded):
                told += error.allowance.headers()
            response = errors.answer(scope["path"], error)
        await (response or self.app)(scope, receive, cors.adding(send, told) if told else send)


class BodyLimit:
    """Refuses a body over the limit: by its declared length at once, else as soon as too much has come; and one that
    hardly comes."""

    def __init__(self, app: ASGIApp, *, upload_max_bytes: int) -> None:
        self.app = app
        self._limits = {
            PICTURE_PATH: PICTURE_MAX_BYTES,
            RENDER_PATH: PICTURE_MAX_BYTES,
            PROOF_PATH: PROOF_MAX_BYTES,
            UPLOAD_PATH: upload_max_bytes + MULTIPART_OVERHEAD_BYTES,
            MODEL_PATH: MODEL_MAX_BYTES + JSON_BODY_MAX_BYTES,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], JSON_BODY_MAX_BYTES)
        declared = _header(scope, b"content-length") or "0"
        if declared.isdigit() and int(declared) > limit:
            shown = f"The body has {int(declared):,} bytes; at most {limit:,} are taken here."
            await errors.answer(scope["path"], TooLarge(shown))(scope, receive, send)
            return
        paced = receive if scope["method"] in BODILESS else Pace(receive)
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await paced()
            received += len(message.get("body", b""))
            if received > limit:  # an HTTPException, the only error FastAPI lets through while it reads a body
                raise HTTPException(413, f"The body is larger than {limit:,} bytes, the most that is taken here.")
            return message

        await self.app(scope, receive_within_limit, send)


async def _admit(scope: Scope, told: cors.HeaderPairs) -> ASGIApp | None:
    """Let a request in, or answer a browser that asks whether a page may send one. Raises NotAuthenticated, NotAllowed,
    RateExceeded."""
    services = scope["app"].state.services
    path = scope["path"]
    if path != access.PROCESS_PROBE and not access.is_local(scope):  # a process whose probe is refused is ended
        await services.limiter.count_address(scope["client"][0])
    if path in access.OPEN_PATHS:
        _enter(scope, access.ANYBODY)
        return None
    head = access.read_head(scope)
    origin = head.get(b"origin")
    if origin is not None:
        named = await services.gate.names(origin)
        if named:
            told += cors.shown_to(origin)
        if cors.is_preflight(scope):
            if named:
                return cors.preflight()
            raise NotAllowed(f"No API key is for pages of {origin!r}.", code="origin_not_allowed")
    caller = await services.gate.admit(scope, head)
    if caller.key_id is not None:
        allowance = await services.limiter.count(caller.key_id, caller.rate)
        told += allowance.headers()
    _enter(scope, caller)
    return None


def _enter(scope: Scope, caller: callers.Caller) -> None:
    scope["ganvas.caller"] = caller
    callers.enter(caller)


def _request_id(scope: Scope) -> str:
    """The client's own id where it is sane, else a new one."""
    sent = _header(scope, b"x-request-id")
    return sent if CLIENT_REQUEST_ID.fullmatch(sent) else f"req_{PROCESS_ID}{next(_numbers):08x}"


def _header(scope: Scope, name: bytes) -> str:
    """The first header of this name, "" without one; a third of the time of starlette's Headers."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
