"""Who asks: known from the head of a request on, wherever the work that was asked for is done."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from app.core.errors import NotAllowed

SCOPES: Final = ("generate", "train", "admin")
EVERY_SCOPE: Final = frozenset(SCOPES)


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request may do, and on whose account; threads and tasks that it starts know it too."""

    scopes: frozenset[str] = frozenset()
    key_id: str | None = None  # of the API key it came with; null without one
    name: str = "loopback"  # of those who need no key: loopback, terminal, studio
    address: str | None = None  # where it came from
    model: str | None = None  # the only one it may use; null: all
    publishable: bool = False  # its key may stand in a page, so that anybody may have it
    rate: str | None = None  # of requests, such as 60/minute; null: the setting's
    max_queued_jobs: int | None = None  # that may wait at once for it; null: any number

    @property
    def owner(self) -> str:
        """Whose account it is: the id of the API key, or a name where there is none."""
        return self.key_id or self.name


STUDIO: Final = Caller(scopes=EVERY_SCOPE, name="studio")  # what nobody asked for: upkeep, and the work of jobs
TERMINAL: Final = Caller(scopes=EVERY_SCOPE, name="terminal")
_current: ContextVar[Caller] = ContextVar("caller", default=STUDIO)


def current() -> Caller:
    """Who asked for what this thread or task does; the studio itself where nobody did."""
    return _current.get()


def enter(caller: Caller) -> None:
    """Let everything that this task does from now on be done for this caller."""
    _current.set(caller)


def require_model(name: str) -> None:
    """NotAllowed where the caller's key is for another model."""
    only = current().model
    if only is not None and name != only:
        raise NotAllowed(f"This key is for the model {only!r} alone.", code="model_not_allowed", param="model")


def require_all_models(what: str) -> None:
    """NotAllowed where the caller's key is for one model; `what` says what such keys may not do."""
    only = current().model
    if only is not None:
        raise NotAllowed(f"This key is for drawing from the model {only!r}; it may not {what}.")
