"""Errors as HTTP: the only table of statuses, and the one shape every error answer has."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from app.core.errors import (
    Busy,
    Conflict,
    GanvasError,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    StorageFull,
    TooLarge,
    Unavailable,
    Underway,
)
from app.core.storage import FULL

PROBLEM_TYPE: Final = "application/problem+json"
UNDERWAY_RETRY_SECONDS: Final = 3
UNAVAILABLE_RETRY_SECONDS: Final = 5  # as long as a database or a Redis takes to come back from a restart
UNREADABLE_BODY: Final = "There was an error parsing the body"  # the framework's words for text that is not UTF-8
SHOWN_INPUT_CHARACTERS: Final = 80
SHOWN_ERRORS: Final = 20


@dataclass(frozen=True)
class Answer:
    """How one kind of error is told over HTTP; `type` is OpenAI's word for it."""

    status: int
    type: str


SERVER_ERROR: Final = Answer(500, "server_error")
ANSWERS: Final[dict[type[GanvasError], Answer]] = {
    InvalidRequest: Answer(422, "invalid_request_error"),
    NotAuthenticated: Answer(401, "authentication_error"),
    NotAllowed: Answer(403, "permission_error"),
    NotFound: Answer(404, "invalid_request_error"),
    Conflict: Answer(409, "invalid_request_error"),
    TooLarge: Answer(413, "invalid_request_error"),
    Busy: Answer(429, "rate_limit_error"),
    Unavailable: Answer(503, "server_error"),
    StorageFull: Answer(507, "server_error"),
    GanvasError: SERVER_ERROR,
}
FRAMEWORK_CODES: Final = {
    400: "body_invalid",
    404: "route_not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "too_large",
}
VALIDATION_CODES: Final = {
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "json_invalid": "json_invalid",
}


def add_handlers(app: FastAPI, routes: Iterable[BaseRoute]) -> None:
    """Answer every error raised behind one of these routes in the one shape."""
    app.state.methods = _methods(routes)
    app.add_exception_handler(GanvasError, _on_ganvas_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_validation_error)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _on_http_exception)  # type: ignore[arg-type]
    app.add_exception_handler(OSError, _on_os_error)  # type: ignore[arg-type]


def answer(path: str, error: GanvasError) -> JSONResponse:
    """The answer to one of our own errors."""
    headers = {}
    if isinstance(error, Busy):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, Unavailable):
        headers["retry-after"] = str(UNAVAILABLE_RETRY_SECONDS)
    elif isinstance(error, Underway):
        headers |= {"retry-after": str(UNDERWAY_RETRY_SECONDS), "x-should-retry": "true"}
    elif isinstance(error, Conflict):
        headers["x-should-retry"] = "false"  # OpenAI's clients would try a 409 again
    elif isinstance(error, NotAuthenticated):
        headers["www-authenticate"] = "Bearer"
    return problem(path, kind_of(error), error.message, error.error_code, param=error.param, headers=headers)


def unreadable(path: str, error: RequestValidationError) -> JSONResponse:
    """The answer to a request that does not have the documented shape."""
    errors = [_readable(item) for item in error.errors()[:SHOWN_ERRORS]]
    first = errors[0]
    return problem(path, ANSWERS[InvalidRequest], first["message"], first["code"], param=first["param"], errors=errors)


def invalid(error: ValidationError) -> InvalidRequest:
    """The first thing that is wrong with what came, where that is not the body of a request."""
    first = error.errors()[0]
    readable = _readable({**first, "loc": ("message", *first["loc"])})
    return InvalidRequest(readable["message"], code=readable["code"], param=readable["param"])


def kind_of(error: GanvasError) -> Answer:
    """The table's row for an error, or for the nearest of its ancestors."""
    return next(ANSWERS[cls] for cls in type(error).__mro__ if cls in ANSWERS)


def error_object(error: GanvasError) -> dict[str, str | None]:
    """OpenAI's `error` object, for an error in the middle of a stream."""
    return _error_object(kind_of(error), error.message, error.error_code, error.param)


def internal_error(path: str) -> JSONResponse:
    """The answer to what nobody foresaw: the log has the trace, the answer has nothing to give away."""
    return problem(
        path, SERVER_ERROR, "Something went wrong here. The log has it under x-request-id.", "internal_error"
    )


def problem(
    path: str,
    kind: Answer,
    message: str,
    code: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> JSONResponse:
    """RFC 9457 problem details that also carry OpenAI's `error` member."""
    body: dict[str, Any] = {
        "type": f"urn:ganvas:error:{code}",
        "title": HTTPStatus(kind.status).phrase,
        "status": kind.status,
        "detail": message,
        "instance": path,
        "error": _error_object(kind, message, code, param),
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, kind.status, headers, media_type=PROBLEM_TYPE)


def _error_object(kind: Answer, message: str, code: str, param: str | None) -> dict[str, str | None]:
    return {"message": message, "type": kind.type, "param": param, "code": code}


async def _on_ganvas_error(request: Request, error: GanvasError) -> JSONResponse:
    return answer(request.url.path, error)


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    if error.detail == UNREADABLE_BODY:
        return answer(request.url.path, InvalidRequest("The body is no JSON that can be read.", code="json_invalid"))
    status, path, headers = error.status_code, request.url.path, dict(error.headers or {})
    message = str(error.detail)
    if status == 404:
        message = f"There is no {path}. GET /v1/openapi.json lists what there is."
    elif status == 405:
        headers["Allow"] = ", ".join(sorted(request.app.state.methods[request.scope["route"].path_format]))
        message = f"{request.method} does nothing at {path}; allowed: {headers['Allow']}."
    kind = Answer(status, "server_error" if status >= 500 else "invalid_request_error")
    return problem(path, kind, message, FRAMEWORK_CODES.get(status, "http_error"), headers=headers)


def _methods(routes: Iterable[BaseRoute]) -> dict[str, set[str]]:
    """The methods that each path answers; of a path with several routes the framework tells those of the first."""
    methods = defaultdict[str, set[str]](set)
    for route in routes:
        if isinstance(route, Route):
            methods[route.path_format] |= route.methods or set()
    return methods


async def _on_os_error(request: Request, error: OSError) -> JSONResponse:
    """A full disk, met outside of storage: in a temporary file."""
    if error.errno not in FULL:
        raise error
    return answer(request.url.path, StorageFull("The disk for temporary files is full; nothing of this was kept."))


async def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    return unreadable(request.url.path, error)


def _readable(item: Mapping[str, Any]) -> dict[str, Any]:
    """One of pydantic's errors: where, what is wrong, what came."""
    kind, where = str(item["type"]), [str(part) for part in item["loc"]]
    code = VALIDATION_CODES.get(kind, "invalid_request")
    if kind == "json_invalid":
        message = f"The body is not JSON: {item['ctx']['error']} at character {where[-1]}."
        return {"param": None, "code": code, "message": message}
    param = ".".join(where[1:]) or None
    if param is None and kind in {"missing", "model_attributes_type"}:
        message = "Send a JSON object, with Content-Type: application/json."
        return {"param": None, "code": "json_expected", "message": message}
    if kind == "extra_forbidden":
        return {"param": param, "code": code, "message": f"There is no field {param!r} here; leave it out."}
    came = item.get("input")
    shown = f" It is {came!r:.{SHOWN_INPUT_CHARACTERS}}." if isinstance(came, str | int | float) else ""
    reason = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    where_shown = f"{param}: " if param else ""
    return {"param": param, "code": code, "message": f"{where_shown}{reason}.{shown}"}
