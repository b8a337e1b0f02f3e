"""The OpenAPI document: what the framework reads off the routes, and every other answer that a route may give.

What an answer of success is, its route says. What can go wrong follows from what a route takes, by the rules of
`MAY_ANSWER`, so that a new route is documented whole from its first day.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPMethod
from typing import Any, Final

from fastapi import FastAPI
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from app.api.access import OPEN_PATHS, PROCESS_PROBE
from app.api.errors import PROBLEM_TYPE
from app.api.idempotency import KEY_HEADER, NOTHING_MADE, REPLAYED_HEADER
from app.api.schemas.problems import Problem
from app.core.idempotency import KEY_CHARACTERS

Described = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/{model}"
METHODS: Final = frozenset(method.lower() for method in HTTPMethod)
FRAMEWORK_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")  # an error of ours has another shape
NAMING: Final = frozenset({"dataset", "id"})  # parameters of queries that mean something there may not be
WRITING_READS: Final = frozenset({"/readyz", "/v1/training/presets"})  # a probe row; wishes for measurements
KEY_SCHEME: Final = "key"
SECURITY: Final = {
    KEY_SCHEME: {"type": "http", "scheme": "bearer", "description": "An API key, gnv_...; on loopback none is needed."}
}
PROBLEMS: Final = {
    400: "This cannot be read as HTTP, or its body not as what it says it is.",
    401: "No key came, or none that is in force.",
    403: "The key, Host or Origin does not permit this.",
    404: "What is named does not exist.",
    408: "The request came too slowly.",
    409: "What is named is in a state that forbids this, or in the making.",
    413: "The body, or what is asked for, is too large.",
    422: "This can be read but not carried out as it stands.",
    429: "Too much at once: come back after Retry-After.",
    431: "The head of the request is too long.",
    500: "Something went wrong here; the log has it under x-request-id.",
    503: "A part this needs is down: come back after Retry-After.",
    507: "There is no room on the disk for anything new.",
}
HEADERS: Final[dict[str, Described]] = {
    "x-request-id": {"description": "Names this request in the log.", "schema": {"type": "string"}},
    "retry-after": {
        "description": "Seconds until asking again makes sense.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "location": {
        "description": "Where to look at what was made.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/v1/"},
    },
    "www-authenticate": {"description": "How to authenticate.", "required": True, "schema": {"type": "string"}},
    "ratelimit": {
        "description": "What is left of the rate, and seconds until it is whole.",
        "schema": {"type": "string"},
    },
    "ratelimit-policy": {"description": "The rate: so many in so many seconds.", "schema": {"type": "string"}},
    REPLAYED_HEADER: {
        "description": "That this is the answer of an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "x-should-retry": {
        "description": "Whether OpenAI's clients shall ask again.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
}
IDEMPOTENCY_KEY: Final[Described] = {
    "name": KEY_HEADER,
    "in": "header",
    "description": "Any word of yours, such as a UUID: the same request under the same key is carried out once, and "
    "answered alike for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS},
}
PROBLEM_HEADERS: Final = {
    401: ("www-authenticate",),
    409: ("x-should-retry",),
    429: ("retry-after", "ratelimit", "ratelimit-policy"),
    503: ("retry-after",),
    507: ("retry-after",),
}
MADE: Final = frozenset({"201", "202"})  # statuses of answers that say where what was made is


@dataclass(frozen=True)
class Operation:
    """What a route takes, as far as it decides what can go wrong."""

    path: str
    method: str
    described: Described

    @property
    def is_open(self) -> bool:
        """Whether it asks for no key."""
        return self.path in OPEN_PATHS

    @property
    def writes(self) -> bool:
        """Whether it changes anything; a write may find the disk full."""
        return self.method != "get" or self.path in WRITING_READS

    @property
    def makes_something(self) -> bool:
        """Whether it takes an Idempotency-Key."""
        return self.method == "post" and self.path not in NOTHING_MADE

    @property
    def takes_body(self) -> bool:
        """Whether a body is read."""
        return "requestBody" in self.described

    @property
    def takes_anything(self) -> bool:
        """Whether there is anything in a request that can be wrong."""
        return self.takes_body or bool(self.described.get("parameters"))

    @property
    def names_something(self) -> bool:
        """Whether a request says what it is about."""
        parameters = self.described.get("parameters", ())
        named = (each["in"] == "path" or each["name"] in NAMING for each in parameters)
        return self.takes_body or any(named)

    @property
    def depends_on_state(self) -> bool:
        """Whether what it is about may be in a state that forbids it."""
        return not self.is_open and (self.method != "get" or self.names_something)


MAY_ANSWER: Final[dict[int, Callable[[Operation], bool]]] = {
    400: lambda _operation: True,
    401: lambda operation: not operation.is_open,
    403: lambda operation: not operation.is_open,
    404: lambda operation: operation.names_something,
    408: lambda _operation: True,
    409: lambda operation: operation.depends_on_state,
    413: lambda _operation: True,
    422: lambda operation: operation.takes_anything,
    429: lambda operation: operation.path != PROCESS_PROBE,
    431: lambda _operation: True,
    500: lambda _operation: True,
    503: lambda operation: operation.path != PROCESS_PROBE,
    507: lambda operation: operation.writes,
}


def files(*media_types: str) -> Described:
    """What a route says of an answer that is a file of one of these types: `responses={200: files("image/png")}`."""
    return {"content": {media_type: {} for media_type in media_types}}


def schema_of(kind: Any) -> Described:
    """The schema of a body that a route reads by itself: of a model, or of a union of several."""
    return TypeAdapter(kind).json_schema(ref_template=SCHEMAS)


def attach(app: FastAPI) -> None:
    """Make the application answer /v1/openapi.json with the whole document; it is built when first asked for."""
    plain = app.openapi

    def whole() -> Described:
        if app.openapi_schema is None:
            _complete(plain())
        return plain()

    app.openapi = whole  # type: ignore[method-assign]


def _complete(document: Described) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in FRAMEWORK_SCHEMAS:
        schemas.pop(name, None)
    _, problem = models_json_schema([(Problem, "serialization")], ref_template=SCHEMAS)
    schemas |= problem["$defs"]
    schemas |= {name: schema for found in _inner_definitions(document["paths"]) for name, schema in found.items()}
    components["headers"] = HEADERS
    components["responses"] = {f"Problem{status}": _problem(status) for status in PROBLEMS}
    components["securitySchemes"] = SECURITY
    document["security"] = [{KEY_SCHEME: []}, {}]
    for path, item in document["paths"].items():
        for method in METHODS & item.keys():
            _complete_operation(Operation(path, method, item[method]))


def _complete_operation(operation: Operation) -> None:
    if operation.makes_something:
        operation.described.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    responses = operation.described["responses"]
    responses.pop("422", None)  # the framework's own idea of it
    for status, response in responses.items():
        named = ["x-request-id"]
        if status in MADE:
            named.append("location")
        if operation.makes_something:
            named.append(REPLAYED_HEADER)
        response["headers"] = response.get("headers", {}) | {name: _header(name) for name in named}
    for status, may in MAY_ANSWER.items():
        if may(operation):
            responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    if operation.is_open:
        operation.described["security"] = []


def _problem(status: int) -> Described:
    named = ("x-request-id", *PROBLEM_HEADERS.get(status, ()))
    return {
        "description": PROBLEMS[status],
        "headers": {name: _header(name) for name in named},
        "content": {PROBLEM_TYPE: {"schema": {"$ref": SCHEMAS.format(model=Problem.__name__)}}},
    }


def _header(name: str) -> Described:
    return {"$ref": f"#/components/headers/{name}"}


def _inner_definitions(part: object) -> Iterator[Described]:
    """The `$defs` of schemas that routes wrote down themselves, taken out: references lead to the components."""
    if isinstance(part, dict):
        if "$defs" in part:
            yield part.pop("$defs")
        for each in part.values():
            yield from _inner_definitions(each)
    elif isinstance(part, list):
        for each in part:
            yield from _inner_definitions(each)
