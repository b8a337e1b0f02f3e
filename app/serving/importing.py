"""Weights that somebody sends: told from programs, and checked against the networks they name before they are kept."""

import re
from pathlib import Path, PurePosixPath
from typing import Final

from app.core.errors import CheckpointInvalid, InvalidRequest
from models import errors as models_errors
from models.checkpoint import CheckpointMeta as CheckpointMeta  # noqa: PLC0414 as the loader has read_meta
from models.checkpoint import check_checkpoint

PICKLE_SUFFIXES: Final = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt"})
# How pickles begin: the number of their version, or, of the oldest, what those of weights build first.
PICKLE_OPENS: Final = re.compile(rb"\x80[\x01-\x05]|c[\w.]+\n[\w.]+\n|\(([dlt]p?\d|c[\w.]+\n)|[\]}]q\x00")
ZIP_OPENS: Final = b"PK\x03\x04"
PICKLE_IN_ZIP: Final = b".pkl"  # which torch.save puts first
LOOKED_AT_BYTES: Final = 4096


def refuse_pickle_name(name: str) -> None:
    """InvalidRequest for what is called as pickles are, before any of it is read."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise _refused(f"A {suffix} file")


def checked_weights(file: Path) -> CheckpointMeta:
    """What a file of weights says of itself, once all of it was found to be sound; nothing in it is ever run.

    Raises InvalidRequest for a pickle, whatever it is called, and CheckpointInvalid for anything else that is no
    checkpoint of ours.
    """
    with file.open("rb") as opened:
        head = opened.read(LOOKED_AT_BYTES)
    if PICKLE_OPENS.match(head) or (head.startswith(ZIP_OPENS) and PICKLE_IN_ZIP in head):
        raise _refused("This file")
    try:
        return check_checkpoint(file)
    except models_errors.CheckpointInvalid as error:
        raise CheckpointInvalid(f"These weights are not taken: {error}", param="file") from error


def _refused(what: str) -> InvalidRequest:
    message = (
        f"{what} is a pickle, and whoever opens a pickle runs the program that is in it: Ganvas opens none. "
        "Send weights as the .safetensors that GET /v1/models/{model}/download gives."
    )
    return InvalidRequest(message, code="pickle_refused", param="file")
