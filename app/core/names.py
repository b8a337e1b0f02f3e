"""What a model may be called, and whether the name is free."""

import re
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import Conflict, InvalidRequest
from app.core.records import Job, Model

MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str) -> str:
    """The name, or InvalidRequest saying what a model may be called."""
    if not MODEL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} cannot name a model: use 1-100 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or digit.",
            code="model_name_invalid",
            param="name",
        )
    return name


def require_free(session: Session, name: str, *, for_job: str | None = None) -> str:
    """The name, or Conflict where a model has it, or an unfinished training or blending that is not this job."""
    unfinished = select(Job).where(
        Job.kind.in_(["train", "render"]), Job.status.in_(["queued", "running"]), Job.id != for_job
    )
    model = session.get(Model, name)
    owned = model is not None and for_job is not None and model.job_id == for_job
    wanted = any(_makes(job, name) for job in session.scalars(unfinished))
    if wanted or (model is not None and not owned):
        message = f"A model named {name!r} exists already, or is being made; choose another name."
        raise Conflict(message, code="model_exists", param="name")
    return name


def _makes(job: Job, name: str) -> bool:
    return job.request.get("name") == name and (job.kind == "train" or job.request.get("kind") == "blend")
