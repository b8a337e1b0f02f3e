"""What preparation says of each file it was sent: one verdict, one plain reason, never silence."""

from enum import StrEnum


class Verdict(StrEnum):
    """The word for a file; `Item.position` says whether its picture is in the dataset."""

    OK = "ok"
    SMALL = "small"  # kept and enlarged, or left out: the reason says which
    DUPLICATE = "duplicate"
    ALPHA = "alpha"
    ODD_RATIO = "odd_ratio"
    GREY = "grey"
    CORRUPT = "corrupt"
    ANIMATED = "animated"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    SIDECAR = "sidecar"


class Refused(Exception):
    """A file that yields no picture, with the verdict and reason its sender will read."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
