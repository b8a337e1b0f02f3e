"""Bodies that are JSON or a form with a file, as the client prefers, on routes where both say the same."""

import json
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from app.api import documenting
from app.api.middleware import JSON_BODY_MAX_BYTES
from app.core.errors import InvalidRequest, TooLarge

FORM_TYPE: Final = "multipart/form-data"
FORM_FIELDS: Final = 32


def documented(schema: Any, form: dict[str, Any]) -> dict[str, Any]:
    """What the documentation says of such a body; schema: a model, or a union of several."""
    content = {"application/json": {"schema": documenting.schema_of(schema)}, FORM_TYPE: {"schema": form}}
    return {"required": True, "content": content}


def is_form(request: Request) -> bool:
    """Whether a form was sent."""
    return request.headers.get("content-type", "").startswith(FORM_TYPE)


async def read_json(request: Request) -> Any:
    """What was sent as JSON. Raises TooLarge, InvalidRequest and the framework's error for what is none."""
    body = await request.body()
    if len(body) > JSON_BODY_MAX_BYTES:
        raise TooLarge(f"The body has {len(body):,} bytes; at most {JSON_BODY_MAX_BYTES:,} of JSON are taken here.")
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        place = {"type": "json_invalid", "loc": ("body", error.pos), "ctx": {"error": error.msg}}
        raise RequestValidationError([place]) from error
    except (RecursionError, ValueError) as error:  # too deep, not UTF-8, a number of thousands of digits
        raise InvalidRequest("The body is no JSON that can be read.", code="json_invalid") from error


async def read_form(request: Request, file_field: str, advice: str) -> tuple[bytes, dict[str, str]]:
    """The file of a form, and its other fields. InvalidRequest, with the advice, where there is no file."""
    async with request.form(max_files=1, max_fields=FORM_FIELDS) as form:
        sent = form.get(file_field)
        if not isinstance(sent, UploadFile):
            raise InvalidRequest(advice, code="missing_field", param=file_field)
        file = await sent.read()
        return file, {name: value for name, value in form.items() if isinstance(value, str)}
