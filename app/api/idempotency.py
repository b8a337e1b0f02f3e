"""Idempotency-Key over HTTP: a POST that comes again is answered as before, and makes nothing again.

A request with a key is claimed before its route sees it. A route that writes rows builds its answer with `made`, which
keeps it in the transaction of those rows; any other answer of success is kept before its last byte leaves. What failed
made nothing, and is not kept: it may be tried again under the same key.

OpenAI's clients send no key, but count how often they tried: their first request is kept under a key that is made of
its content, and the next ones are taken for the same. Pictures that nobody keeps are left out: they make nothing.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import errors
from app.api.deps import Services
from app.api.middleware import MODEL_PATH, PICTURE_PATH, PROOF_PATH, UPLOAD_PATH
from app.core import callers, idempotency, space
from app.core.errors import Conflict, GanvasError, InvalidRequest, Underway
from app.core.idempotency import Answer, Asked, Claim

log = structlog.get_logger(__name__)

KEY_HEADER: Final = "idempotency-key"
RETRY_HEADER: Final = "x-stainless-retry-count"  # of OpenAI's clients: 0 with the first try
SIGNS: Final = frozenset({KEY_HEADER.encode(), RETRY_HEADER.encode()})
REPLAYED_HEADER: Final = "idempotency-replayed"
KEY_FORM: Final = re.compile(rf"[\x20-\x7e]{{1,{idempotency.KEY_CHARACTERS}}}")
UNKEPT_HEADERS: Final = frozenset({"content-length", "x-request-id"})  # each answer has its own
PICTURE_PATHS: Final = frozenset({"/v1/images/generations", PICTURE_PATH})
KEEP_FIELD: Final = b"keep"  # in whichever way a body says it
# Bodies too large to hold: their routes call `uploaded_before`.
STREAMED_PATHS: Final = frozenset({UPLOAD_PATH, MODEL_PATH})
NOTHING_MADE: Final = frozenset({PROOF_PATH})
FAILED_FROM: Final = 400  # statuses
FORM_TYPE: Final = b"multipart/form-data"


class Attempt:
    """One request that has a key, or that an OpenAI client may send again."""

    def __init__(self, services: Services, scope: Scope, headers: Headers) -> None:
        self.path: Final[str] = scope["path"]
        self.key: Final = headers.get(KEY_HEADER)  # null: to be guessed
        self.spoiled = False  # the answer broke off, though its status says success
        self._services = services
        self._owner = callers.current().owner
        self._retried = headers.get(RETRY_HEADER, "0") != "0"
        query = scope["query_string"].decode("latin-1")
        self._route = f"{scope['method']} {self.path}{'?' if query else ''}{query}"
        self._accept = headers.get("accept", "")
        self._claim: Claim | None = None
        self._kept: int | None = None  # status of the answer that a transaction told, which may still fail to commit
        self._settled = False

    def require_sound(self) -> None:
        """InvalidRequest for a key that is none."""
        if self.key is not None and not KEY_FORM.fullmatch(self.key):
            message = f"An Idempotency-Key has 1 to {idempotency.KEY_CHARACTERS} printable ASCII characters."
            raise InvalidRequest(f"{message} Send a UUID.", code="idempotency_key_invalid", param="Idempotency-Key")

    async def before(self, digest: Callable[[], str]) -> Response | None:
        """The answer that this content had before, or None with the key claimed. Raises Underway, InvalidRequest.

        digest: of the content; called in a thread.
        """
        try:
            found = await asyncio.to_thread(self._begin, digest)
        except Underway:
            if self._anew:  # the same is wanted twice at once, which first tries may
                return None
            raise
        if isinstance(found, Answer):
            return Response(found.body, found.status, {**found.headers, REPLAYED_HEADER: "true"})
        self._claim = found
        return None

    def keep(self, session: Session, answer: Answer, *, sent: int) -> None:
        """Keep an answer in this transaction; sent: the status that the sender gets now. Raises Underway where another
        attempt has taken over."""
        if self._claim is not None:
            idempotency.keep(session, self._services.storage, self._claim, answer)
            self._kept = sent

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renew the claim meanwhile, and give it up where nothing was made by then."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            await self._release()

    def recording(self, send: Send) -> Send:
        """Sends on, the last piece only once the answer is kept, or the key free again."""
        status, headers, pieces = 0, dict[str, str](), list[bytes]()

        async def send_kept(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], _told(message["headers"])
            elif self._claim is not None:
                pieces.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._settle(Answer(status, headers, b"".join(pieces)))
            await send(message)

        return send_kept

    @property
    def _anew(self) -> bool:
        return self.key is None and not self._retried

    def _begin(self, digest: Callable[[], str]) -> Claim | Answer:
        told = json.dumps([self._route, self._accept, digest()])
        fingerprint = hashlib.sha256(told.encode()).hexdigest()
        key = idempotency.guessed_key(fingerprint) if self.key is None else self.key
        asked = Asked(self._owner, key, self._route, fingerprint, anew=self._anew)
        with self._services.db.begin() as session:
            return idempotency.begin(session, self._services.storage, asked)

    async def _settle(self, answer: Answer) -> None:
        if self._kept == answer.status:
            self._settled = True
        elif answer.status < FAILED_FROM and not self.spoiled:
            self._settled = await self._change(partial(self._keep_where_room, answer=answer))
        await self._release()

    async def _release(self) -> None:
        if self._claim is not None and not self._settled:
            self._settled = await self._change(partial(idempotency.release, claim=self._claim))

    def _keep_where_room(self, session: Session, answer: Answer) -> None:
        space.require_room(self._services.settings)  # what answers take is least needed of all that takes room
        self.keep(session, answer, sent=answer.status)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(idempotency.RENEW_SECONDS)
            if self._claim is not None:
                await self._change(partial(idempotency.renew, claim=self._claim))

    async def _change(self, change: Callable[[Session], None]) -> bool:
        """Whether the change was committed. Where it was not, the claim lapses, and the next try begins anew."""

        def commit() -> None:
            with self._services.db.begin() as session:
                change(session)

        try:
            await asyncio.to_thread(commit)
        except GanvasError as error:
            log.warning("idempotency_not_kept", route=self._route, reason=error.message)
            return False
        return True


_current: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def made(session: Session, shown: BaseModel, status: int = 200, *, location: str | None = None) -> Response:
    """The answer of a route that made something, kept in the transaction that made it."""
    return kept(session, _response(shown, status, location))


def kept(session: Session, response: Response) -> Response:
    """The same response, kept in this transaction for who asks again."""
    attempt = _current.get()
    if attempt is not None:
        attempt.keep(session, _answer(response), sent=response.status_code)
    return response


def made_secret(session: Session, shown: BaseModel, status: int, *, location: str, later: Conflict) -> Response:
    """As `made`, for an answer that shows a secret: it is not kept, and who asks again is told `later`."""
    attempt = _current.get()
    if attempt is not None:
        attempt.keep(session, _answer(errors.answer(attempt.path, later)), sent=status)
    return _response(shown, status, location)


async def uploaded_before(fields: Mapping[str, str], archive: Path) -> Response | None:
    """The answer that this upload had before, or None with its key claimed: for routes that stream their bodies, once
    all has come and before anything is made. Raises Underway, InvalidRequest."""
    attempt = _current.get()
    return None if attempt is None else await attempt.before(partial(_upload_digest, fields, archive))


def spoil() -> None:
    """The answer that is being sent breaks off: it is none to be told again."""
    attempt = _current.get()
    if attempt is not None:
        attempt.spoiled = True


class Idempotency:
    """Answers a POST that came before as it was answered then; without a key, or a sign of one, it does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        attempt = _attempt(scope)
        if attempt is None:
            await self.app(scope, receive, send)
            return
        try:
            attempt.require_sound()
            if attempt.path not in STREAMED_PATHS:
                body = await _whole(receive)
                receive = _again(body, receive)
                if attempt.key is None and attempt.path in PICTURE_PATHS and KEEP_FIELD not in body:
                    await self.app(scope, receive, send)
                    return
                content_type = Headers(scope=scope).get("content-type", "")
                answered = await attempt.before(partial(_body_digest, content_type, body))
                if answered is not None:
                    await answered(scope, receive, send)
                    return
        except GanvasError as error:
            await errors.answer(attempt.path, error)(scope, receive, send)
            return
        except HTTPException as error:  # of the limits on bodies: the route comes upon it too, and answers
            await self.app(scope, _failing(error), send)
            return
        _current.set(attempt)
        async with attempt.held():
            await self.app(scope, receive, attempt.recording(send))


def _attempt(scope: Scope) -> Attempt | None:
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] in NOTHING_MADE:
        return None
    if not any(name in SIGNS for name, _ in scope["headers"]):
        return None
    caller = callers.current()
    if caller.publishable or not caller.scopes:  # it draws, or looks at what is open to all: neither may fill the disk
        return None
    return Attempt(scope["app"].state.services, scope, Headers(scope=scope))


async def _whole(receive: Receive) -> bytes:
    """The whole body. Raises ClientDisconnect where the sender leaves before its end."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read, and then whatever comes behind it."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _failing(error: HTTPException) -> Receive:
    async def receive() -> Message:
        raise error

    return receive


def _body_digest(content_type: str, body: bytes) -> str:
    """Of a body; the boundary of a form, which differs each time it is sent, is left out."""
    kind, options = parse_options_header(content_type)
    if kind == FORM_TYPE:
        content_type, body = kind.decode(), body.replace(b"--" + options.get(b"boundary", b""), b"--")
    return hashlib.sha256(content_type.encode() + b"\n" + body).hexdigest()


def _upload_digest(fields: Mapping[str, str], archive: Path) -> str:
    with archive.open("rb") as file:
        files = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps([sorted(fields.items()), files]).encode()).hexdigest()


def _response(shown: BaseModel, status: int, location: str | None) -> Response:
    headers = {} if location is None else {"location": location}
    return Response(shown.model_dump_json(by_alias=True), status, headers, "application/json")


def _answer(response: Response) -> Answer:
    return Answer(response.status_code, _told(response.raw_headers), bytes(response.body))


def _told(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """What of an answer's headers is told again."""
    pairs = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)
    return {name: value for name, value in pairs if name not in UNKEPT_HEADERS}
