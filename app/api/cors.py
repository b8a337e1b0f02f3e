"""Pages of other origins: what their browsers are told, for those that a key in force names."""

from typing import Final

from starlette.responses import Response
from starlette.types import Message, Scope, Send

HeaderPairs = list[tuple[bytes, bytes]]

METHODS: Final = "GET, HEAD, POST, PATCH, DELETE"
ASKED_HEADERS: Final = "authorization, *"  # * does not mean the first; OpenAI's client sends many of its own
SHOWN_HEADERS: Final = (
    "etag, location, retry-after, ratelimit, ratelimit-policy, x-request-id, x-ganvas-recipe, x-ganvas-artwork, "
    "idempotency-replayed"
)
PREFLIGHT_SECONDS: Final = 600  # that a browser remembers what it may ask
ANSWERS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def is_preflight(scope: Scope) -> bool:
    """Whether a browser asks if a page may ask."""
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    return any(name == b"access-control-request-method" for name, _ in scope["headers"])


def preflight() -> Response:
    """Yes: with any of our methods and headers."""
    return Response(
        status_code=204,
        headers={
            "access-control-allow-methods": METHODS,
            "access-control-allow-headers": ASKED_HEADERS,
            "access-control-max-age": str(PREFLIGHT_SECONDS),
        },
    )


def shown_to(origin: str) -> HeaderPairs:
    """What lets a page of this origin read an answer."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", SHOWN_HEADERS.encode()),
        (b"vary", b"Origin"),
    ]


def adding(send: Send, headers: HeaderPairs) -> Send:
    """`send`, with these headers on the answer."""

    async def send_with(message: Message) -> None:
        if message["type"] in ANSWERS:
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return send_with
