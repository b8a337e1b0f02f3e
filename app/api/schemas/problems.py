"""Problems: the one shape of every error answer, RFC 9457 with OpenAI's `error` member."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ErrorType = Literal[
    "invalid_request_error", "authentication_error", "permission_error", "rate_limit_error", "server_error"
]


class ErrorObject(BaseModel):
    """The error as OpenAI's clients read it."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(description="What came, and what to do.")
    type: ErrorType = Field(description="OpenAI's word for this kind of error.")
    param: str | None = Field(description="The field it is about.")
    code: str = Field(description="A stable word; docs/errors.md lists them.")


class FieldError(BaseModel):
    """One of several things that are wrong with a request."""

    model_config = ConfigDict(extra="forbid")

    param: str | None = Field(description="The field it is about.")
    code: str = Field(description="A stable word; docs/errors.md lists them.")
    message: str = Field(description="What came, and what to do.")


class Problem(BaseModel):
    """Why a request was not carried out."""

    model_config = ConfigDict(extra="forbid", title="Problem")

    type: str = Field(pattern="^urn:ganvas:error:[a-z_]+$", description="A name for this kind of problem.")
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status.")
    detail: str = Field(description="What came, and what to do.")
    instance: str = Field(description="The path that was asked.")
    error: ErrorObject = Field(description="The same for OpenAI's clients.")
    errors: list[FieldError] = Field([], description="Everything that is wrong with the request; absent elsewhere.")
