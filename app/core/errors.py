"""Every error Ganvas raises on purpose, with the stable code a client may rely on.

GanvasError
├── InvalidRequest             the request can be read but not carried out as it stands
│   ├── SettingsInvalid        a GANVAS_* setting cannot work here
│   └── CheckpointInvalid      a weights file is not one of ours, or is damaged
├── NotAuthenticated           no key, or not one of ours
├── NotAllowed                 the key, Host or Origin does not permit this
├── NotFound                   the thing named does not exist
├── Conflict                   the thing exists in a state that forbids this
│   ├── JobStateConflict       a job cannot take that step from where it is
│   └── Underway               what it takes is in the making; ask again in a moment
├── TooLarge                   the body or file exceeds a limit
├── Busy                       come back later; carries retry_after seconds
├── Unavailable                a part we need is down
│   ├── StorageFull            there is no room on the disk, or too little to begin anything new
│   └── Damaged                what is stored is no longer what was written
└── TrainingDiverged           the losses left the real numbers
"""

from typing import ClassVar


class GanvasError(Exception):
    """Base of all our errors: a stable `code`, a `message` for people, and the `param` it is about."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or type(self).code
        self.param = param


class InvalidRequest(GanvasError):
    """The request can be read but not carried out as it stands."""

    code = "invalid_request"


class SettingsInvalid(InvalidRequest):
    """A GANVAS_* setting cannot work here."""

    code = "settings_invalid"


class CheckpointInvalid(InvalidRequest):
    """A weights file is not one of ours, or is damaged."""

    code = "checkpoint_invalid"


class NotAuthenticated(GanvasError):
    """No key came, or one that is not ours."""

    code = "invalid_api_key"


class NotAllowed(GanvasError):
    """The key, Host or Origin does not permit this."""

    code = "not_allowed"


class NotFound(GanvasError):
    """The thing named does not exist; pass `code` as noun_not_found."""

    code = "not_found"


class Conflict(GanvasError):
    """The thing exists in a state that forbids this."""

    code = "conflict"


class JobStateConflict(Conflict):
    """A job cannot take that step from where it is."""

    code = "job_state_conflict"


class Underway(Conflict):
    """What it takes is in the making; ask again in a moment."""

    code = "underway"


class TooLarge(GanvasError):
    """The body or file exceeds a limit."""

    code = "too_large"


class Busy(GanvasError):
    """Come back later."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class Unavailable(GanvasError):
    """A part we need is down."""

    code = "unavailable"


class StorageFull(Unavailable):
    """There is no room on the disk, or too little to begin anything new."""

    code = "storage_full"


class Damaged(Unavailable):
    """What is stored is no longer what was written; `ganvas doctor` looks for the like."""

    code = "blob_damaged"


class TrainingDiverged(GanvasError):
    """The losses left the real numbers."""

    code = "training_diverged"
