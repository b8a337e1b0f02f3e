"""Live: a performance over a websocket, newest recipe first."""

import asyncio
import contextlib
import json
import secrets
import time
from typing import Any, Final

import structlog
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.api import drawing, errors
from app.api.access import KEY_TRUSTED_SECONDS, SUBPROTOCOL, read_head
from app.api.deps import Services, caller_of, require, services_of
from app.api.performing import Session
from app.api.schemas.live import LiveQuery
from app.core.errors import Busy, GanvasError, InvalidRequest
from app.serving.live import RETRY_SECONDS, Frame, Refusal, Viewer

log = structlog.get_logger(__name__)

router = APIRouter(tags=["live"])

CLOSED: Final = 4000  # and the status that the same error has over HTTP
INTERNAL_ERROR: Final = 1011  # RFC 6455, 7.4.1
REASON_BYTES: Final = 123  # of a closing frame, 5.5
STALLED_SECONDS: Final = 20.0  # without a byte taken; then a viewer is given up
GOODBYE_SECONDS: Final = 1.0
PUBLISHABLE_SHARE: Final = 0.75  # of live connections: anybody may have such a key, and the artist wants to play too
MAX_BAD_MESSAGES: Final = 20  # one after the other


@router.websocket("/v1/models/{model}/live")
async def live(websocket: WebSocket, model: str) -> None:
    """JSON texts in, frames out; see docs/live.md."""
    try:
        require(websocket, "generate")
    except GanvasError as error:
        await websocket.send_denial_response(errors.answer(websocket.url.path, error))
        return
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
    try:
        await _attend(websocket, model)
    except WebSocketDisconnect:
        log.debug("live_viewer_left")
    except GanvasError as error:
        await _close(websocket, CLOSED + errors.kind_of(error).status, error)
    except Exception:
        log.exception("live_failed")
        await _close(websocket, INTERNAL_ERROR, GanvasError("Something went wrong here; the log has it."))


async def _attend(websocket: WebSocket, model: str) -> None:
    """Join, then listen and speak until one of the two ends."""
    services = services_of(websocket)
    try:
        query = LiveQuery.model_validate(dict(websocket.query_params))
    except ValidationError as error:
        raise errors.invalid(error) from error
    served = await services.directory.resolve(model)
    most = services.settings.max_live_viewers
    if caller_of(websocket).publishable and services.stage.viewers() >= most * PUBLISHABLE_SHARE:
        message = f"{most} live connections may be open, and the last of them are not for publishable keys."
        raise Busy(message, retry_after=RETRY_SECONDS, code="live_full")
    name = query.performance or query.watch or secrets.token_hex(16)
    async with services.stage.joined(f"{served.model}/{name}") as viewer:
        session = Session(services.directory, model, viewer, may_perform=query.watch is None)
        tasks = [
            asyncio.create_task(_listen(websocket, session)),
            asyncio.create_task(_speak(websocket, services, viewer)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await drawing.drop(tasks)
        for task in done:
            task.result()


async def _listen(websocket: WebSocket, session: Session) -> None:
    """Hear every message; it is what was said together that is painted, and no message waits for that."""
    bad = 0
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        bad = 0 if await session.hear(message.get("text")) else bad + 1
        if bad >= MAX_BAD_MESSAGES:
            text = f"{bad} messages one after the other came to nothing; their errors say why."
            raise InvalidRequest(text, code="live_gave_up")
        await asyncio.sleep(0)  # the server hands over all that has come without a pause


async def _speak(websocket: WebSocket, services: Services, viewer: Viewer) -> None:
    """Send what there is to show, as fast as it is taken."""
    trusted_until = time.monotonic() + KEY_TRUSTED_SECONDS
    while True:
        news = await viewer.next()
        if time.monotonic() >= trusted_until:
            await services.gate.admit(websocket.scope, read_head(websocket.scope))
            trusted_until = time.monotonic() + KEY_TRUSTED_SECONDS
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await _tell(websocket, news, full=viewer.kind.file.metadata == "full")
        except TimeoutError:
            raise WebSocketDisconnect(INTERNAL_ERROR, "It took nothing for too long.") from None


async def _tell(websocket: WebSocket, news: Frame | Refusal, *, full: bool) -> None:
    if isinstance(news, Refusal):
        await websocket.send_text(json.dumps(_refusal(news.error, news.id)))
        return
    if news.id is not None:
        told: dict[str, Any] = {"id": news.id, "passes": news.passes}
        if full:
            told["recipe"] = news.recipe.model_dump(mode="json")
        await websocket.send_text(json.dumps(told))
    await websocket.send_bytes(news.file)


def _refusal(error: GanvasError, id_: str | int | None = None) -> dict[str, Any]:
    refusal: dict[str, Any] = {"error": errors.error_object(error)}
    return refusal if id_ is None else {"id": id_} | refusal


async def _close(websocket: WebSocket, code: int, error: GanvasError) -> None:
    """Say why, and go; who does not listen any more is left without."""
    reason = error.message.encode()[:REASON_BYTES].decode(errors="ignore")
    with contextlib.suppress(WebSocketDisconnect, TimeoutError):
        async with asyncio.timeout(GOODBYE_SECONDS):
            await websocket.send_text(json.dumps(_refusal(error)))
            await websocket.close(code, reason)
