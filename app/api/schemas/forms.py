"""What stands in forms and queries, where all is text."""

import re
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BeforeValidator, Field

TRUTHS: Final = {"true": True, "false": False}
DATE_OPENS: Final = re.compile(r"\d{4}-\d\d-\d\d")


def _truth(sent: Any) -> Any:
    return TRUTHS.get(sent, sent) if isinstance(sent, str) else sent


def _moment(sent: Any) -> Any:
    if isinstance(sent, str) and not DATE_OPENS.match(sent):
        raise ValueError("a time opens with its date, as in 2026-01-31T00:00Z")  # pydantic takes 0.5 for one, of 1970
    return sent


Truth = Annotated[bool, Field(strict=True), BeforeValidator(_truth)]  # true or false, no 1 and no "yes"
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
