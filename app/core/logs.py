"""Structured logs: one line an event, readable on a terminal and JSON everywhere else, always on standard error; no
line has a key or a secret in it, whoever wrote it."""

import contextlib
import logging
import re
import sys
from typing import Any, Final, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HANDLER: Final = "ganvas"
LIBRARY_LEVEL: Final = logging.WARNING
HIDDEN: Final = "[hidden]"
# What must not be read in a log, each with the part of it that may stay: it says what was hidden.
SECRETS: Final = re.compile(
    r"(gnv_(?:pub_)?)[A-Za-z0-9_-]{8,}"
    r"|(whsec_)[A-Za-z0-9+/=_-]+"
    r"|(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(authorization\W{1,12}(?:\w+\s+)?)[A-Za-z0-9._~+/=-]{8,}"
    # Who logs in at a database, or at a Redis. A scheme is short: what is logged may be a stranger's, of any length.
    r"|(\b[a-z][a-z0-9+.-]{0,30}://)[^\s/@\"']+(?=@)",
    re.IGNORECASE,
)


def configure_logs(level: str) -> None:
    """Send structlog's events of this level and above to standard error, and what libraries warn of."""
    if sys.stderr.isatty():
        rendering: list[Processor] = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:  # no local variables in a traceback: they hold headers, and so keys
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendering = [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    telling: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*telling, *rendering, _hide],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving())),
        cache_logger_on_first_use=True,
    )
    _take_over_libraries(telling, rendering)


def without_secrets(text: str) -> str:
    """The same text with every key, secret and password in it hidden."""
    return SECRETS.sub(lambda found: f"{found[found.lastindex or 0]}{HIDDEN}", text)


class _Forgiving:
    """Standard error, into a file on a disk that may be full: a line that cannot be written harms nothing else."""

    def write(self, text: str) -> int:
        """Write a line, or lose it."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand on what is written."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def _hide(_logger: WrappedLogger, _method: str, rendered: EventDict | str) -> Any:
    """The last of the processors: by now an event is a line of text, whatever it held."""
    return without_secrets(str(rendered))


def _take_over_libraries(telling: list[Processor], rendering: list[Processor]) -> None:
    """What is logged the usual way, by uvicorn and rq among others, becomes lines of the same kind."""
    handler = _StandardError()
    handler.set_name(HANDLER)
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    whole: list[Processor] = [meta, *rendering, _hide]
    told = [*telling, structlog.stdlib.add_logger_name]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=whole, foreign_pre_chain=told))
    root = logging.getLogger()
    for before in [each for each in root.handlers if each.get_name() == HANDLER]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(LIBRARY_LEVEL)
