"""Requests that are sent only where something has changed."""

from starlette.requests import Request


def has(request: Request, etag: str) -> bool:
    """Whether the client already has the file with this ETag."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in tags or tags == ["*"]
