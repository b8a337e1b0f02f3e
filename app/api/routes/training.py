"""Training: starts a job that turns a ready dataset into a model."""

from typing import Final

from fastapi import APIRouter, Response

from app.api.deps import MayTrain, ServicesDep
from app.api.schemas.jobs import JobOut
from app.api.schemas.training import Budget, TrainingIn
from app.core import catalogue, datasets, jobs
from app.core.errors import InvalidRequest
from models.config import TrainConfig
from models.errors import ConfigInvalid
from models.presets import PRESETS, preset, preset_resolutions

router = APIRouter(prefix="/v1/training", tags=["training"], dependencies=[MayTrain])

DEFAULT_PRESET: Final = "tiny"
CHANNELS: Final = 3  # of every prepared picture


@router.post("/jobs", status_code=202)
def start(body: TrainingIn, response: Response, services: ServicesDep) -> JobOut:
    """Train a model on a dataset; it can be drawn from after the first minute, while it still trains."""
    name = catalogue.check_name(body.name)
    with services.db.begin() as session:
        dataset = datasets.require_ready(datasets.find(session, body.dataset))
        config = _config(body, dataset.resolution or 0)
        catalogue.require_free(session, name)
        request = {"dataset": dataset.id, "name": name, "config": config.model_dump(mode="json")}
        job = jobs.submit(session, "train", request)
        shown = JobOut.of(job, jobs.position(session, job))
    services.dispatcher.dispatch(job)
    response.headers["location"] = f"/v1/jobs/{job.id}"
    return shown


def _config(body: TrainingIn, resolution: int) -> TrainConfig:
    """The whole configuration of what was asked for, or InvalidRequest saying what fits this dataset."""
    budget = body.budget or Budget()
    if body.config is None:
        return _from_preset(body.preset or DEFAULT_PRESET, resolution, budget, body.seed)
    if body.preset is not None:
        raise InvalidRequest("Give a preset or a config, not both.", code="preset_and_config", param="preset")
    if body.config.network.resolution != resolution:
        message = f"The config is for {body.config.network.resolution} px; set network.resolution to {resolution}."
        raise InvalidRequest(message, code="config_does_not_fit", param="config")
    if body.config.network.channels != CHANNELS:
        message = f"The config is for {body.config.network.channels} channels; datasets have {CHANNELS}."
        raise InvalidRequest(message, code="config_does_not_fit", param="config")
    changes: dict[str, float | int | None] = {}
    if body.budget is not None and (budget.kimg is not None or budget.minutes is not None):
        changes |= {"total_kimg": budget.kimg, "max_minutes": budget.minutes}
    if body.seed is not None:
        changes["seed"] = body.seed
    return body.config.model_copy(update=changes)


def _from_preset(name: str, resolution: int, budget: Budget, seed: int | None) -> TrainConfig:
    if name not in PRESETS:
        message = f"There is no preset {name!r}; there are {', '.join(sorted(PRESETS))}."
        raise InvalidRequest(message, code="preset_unknown", param="preset")
    if resolution not in preset_resolutions(name):
        raise _misfit(name, resolution)
    try:
        return preset(name, resolution, total_kimg=budget.kimg, max_minutes=budget.minutes, seed=seed)
    except ConfigInvalid as error:
        raise InvalidRequest(str(error), code="config_invalid", param="preset") from error


def _misfit(name: str, resolution: int) -> InvalidRequest:
    sizes = ", ".join(str(size) for size in preset_resolutions(name))
    others = [other for other in sorted(PRESETS) if resolution in preset_resolutions(other)]
    advice = f"Presets that fit: {', '.join(others)}." if others else "Upload the artwork again with that resolution."
    message = f"Preset {name!r} fits pictures of {sizes} px; this dataset has {resolution} px. {advice}"
    return InvalidRequest(message, code="preset_does_not_fit", param="preset")
