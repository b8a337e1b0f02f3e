"""One thing that the doctor looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["well", "note", "repaired", "wrong"]


@dataclass(frozen=True)
class Finding:
    """How something stands. Of these only what is `wrong` needs somebody; a `note` is good to know."""

    about: str
    state: State
    message: str


def well(about: str, message: str) -> Finding:
    """Nothing is the matter."""
    return Finding(about, "well", message)


def note(about: str, message: str) -> Finding:
    """Nothing is the matter, and somebody may want to know."""
    return Finding(about, "note", message)


def repaired(about: str, message: str) -> Finding:
    """It was wrong, and is not any more."""
    return Finding(about, "repaired", message)


def wrong(about: str, message: str) -> Finding:
    """Somebody has to do something."""
    return Finding(about, "wrong", message)


def repairable(about: str, message: str) -> Finding:
    """It is wrong, and the doctor could put it right if it was asked to."""
    return Finding(about, "wrong", f"{message} `ganvas doctor --repair` puts that right.")
