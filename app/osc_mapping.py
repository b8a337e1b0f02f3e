"""What OSC addresses mean to a performance: a fixed table, from a TOML file or built in. Nothing in it is run."""

import math
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.core.errors import InvalidRequest

# Where a number goes, a whole number, and a text.
NUMBERS: Final = frozenset({"psi", "truncation_psi", "cross.amount"})
WHOLE_NUMBERS: Final = frozenset({"seed", "cutoff", "truncation_cutoff"})
TEXTS: Final = frozenset({"prompt", "label"})
SWITCHES: Final = frozenset({"reset"})
SLIDERS: Final = "sliders."
HEADER: Final = re.compile(r"\s*\[\[\s*map\s*\]\]")

BUILT_IN: Final = """\
[[map]]
address = "/slider/*"
to = "sliders.*"

[[map]]
address = "/psi"
to = "psi"

[[map]]
address = "/cutoff"
to = "cutoff"

[[map]]
address = "/seed"
to = "seed"

[[map]]
address = "/cross"
to = "cross.amount"

[[map]]
address = "/prompt"
to = "prompt"

[[map]]
address = "/label"
to = "label"

[[map]]
address = "/reset"
to = "reset"
"""

Range = tuple[float, float]
Where = tuple[str, ...]  # a field of live messages: ("sliders", "rust")
Change = tuple[Where, Any]  # and its new value
Curve = Literal["linear", "square", "sqrt", "log"]


class Rule(BaseModel):
    """One line of the table: an address, a field of live messages, and how a number gets from the one to the other."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    address: str = Field(pattern=r"^(/[^\s#*,/?\[\]{}]+)+(/\*)?$")  # OSC 1.0 keeps the others for patterns
    to: str
    from_: Range | None = Field(None, alias="from")
    range: Range | None = None
    curve: Curve = "linear"
    clamp: bool = True

    @model_validator(mode="after")
    def _works(self) -> Self:
        slider = self.to.removeprefix(SLIDERS) if self.to.startswith(SLIDERS) else ""
        if self.to not in NUMBERS | WHOLE_NUMBERS | TEXTS | SWITCHES and not slider:
            known = ", ".join(sorted([*NUMBERS, *WHOLE_NUMBERS, *TEXTS, *SWITCHES, SLIDERS + "NAME"]))
            raise ValueError(f"to: {self.to!r} is no field of a live message; there are {known}")
        if self.address.endswith("/*") != (slider == "*"):
            raise ValueError('address and to: the last part may be *, as in "/slider/*" to "sliders.*", of both')
        if (self.from_ is None) != (self.range is None):
            raise ValueError("from and range go together")
        if self.range is None or self.from_ is None:
            if self.curve != "linear":
                raise ValueError("curve: it bends what from and range span; give both")
            return self
        if self.to in TEXTS | SWITCHES:
            raise ValueError(f"range: {self.to} is no number")
        if self.from_[0] == self.from_[1]:
            raise ValueError("from: its ends are the same")
        if self.curve == "log" and min(self.range) <= 0:
            raise ValueError("range: of a logarithmic curve both ends are above 0")
        return self

    def change(self, address: str, arguments: Sequence[Any]) -> Change | None:
        """What a message to an address of this rule changes; None where it came with nothing of use."""
        value = self._value(arguments[0] if arguments else None)
        if value is None:
            return None
        outer, _, inner = self.to.partition(".")
        if inner == "*":
            inner = address.rpartition("/")[2]
        return ((outer, inner) if inner else (outer,)), value

    def _value(self, argument: Any) -> Any:
        if self.to in SWITCHES:
            return True if argument is None or argument else None  # a button sends 1 when it is pressed, then 0
        if self.to in TEXTS:
            return argument if isinstance(argument, str) else None
        if not isinstance(argument, int | float) or not math.isfinite(argument):
            return None
        number = self._scaled(float(argument))
        # OSC's floats have 7 digits: 0.49 is meant, and not 0.49000000953674316.
        return round(number) if self.to in WHOLE_NUMBERS else float(f"{number:.7g}")

    def _scaled(self, number: float) -> float:
        if self.from_ is None or self.range is None:
            return number
        start, end = self.range
        part = (number - self.from_[0]) / (self.from_[1] - self.from_[0])
        if self.clamp:
            part = min(max(part, 0.0), 1.0)
        if self.curve == "log":
            return float(start * (end / start) ** part)
        power = {"linear": 1.0, "square": 2.0, "sqrt": 0.5}[self.curve]
        return start + math.copysign(abs(part) ** power, part) * (end - start)


class Mapping(BaseModel):
    """The table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    map: tuple[Rule, ...] = Field(min_length=1)

    def change(self, address: str, arguments: Sequence[Any]) -> Change | None:
        """What a message changes, by the first rule for its address; None where there is none, or nothing of use."""
        starred = address.rpartition("/")[0] + "/*"
        for rule in self.map:
            if rule.address in (address, starred):
                return rule.change(address, arguments)
        return None


def read_mapping(path: Path | None) -> Mapping:
    """The table of a file, or the one that is built in. Raises InvalidRequest naming the line and what is wrong."""
    if path is None:
        return parse_mapping(BUILT_IN, "the built-in mapping")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(str(path), None, f"it cannot be read: {error}") from error
    return parse_mapping(text, str(path))


def parse_mapping(text: str, name: str) -> Mapping:
    """The table that a text is; name: what to call it in an error. Raises as read_mapping() does."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # whose message ends with line and column
        raise _refused(name, None, str(error)) from error
    try:
        return Mapping.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] != "value_error":  # ours begin with the field they are about
            reason = f"{[part for part in first['loc'] if isinstance(part, str)][-1]}: {reason}"
        number = next((part for part in first["loc"] if isinstance(part, int)), None)
        raise _refused(name, _line(text, number, reason.partition(":")[0].split()[0]), reason) from error


def _line(text: str, number: int | None, field: str) -> int:
    """Where a field of the rule with this number stands, or else its head; of the file's own fields, the field."""
    rule, head = -1, 1
    for count, line in enumerate(text.splitlines(), 1):
        if HEADER.match(line):
            rule += 1
            head = count if rule == number else head
        elif re.match(rf"\s*\"?{re.escape(field)}\"?\s*=", line) and number in (None, rule):
            return count
    return head


def _refused(name: str, line: int | None, reason: str) -> InvalidRequest:
    where = name if line is None else f"{name}, line {line}"
    return InvalidRequest(f"{where}: {reason.rstrip('.')}.", code="mapping_invalid", param="mapping")
