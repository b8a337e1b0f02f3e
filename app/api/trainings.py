"""From what was asked for to a training's whole configuration and its queued job, or a refusal that says what fits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.api.schemas.jobs import JobOut
from app.api.schemas.training import BranchIn, Budget, TrainingIn, TrainingOut
from app.api.schemas.webhooks import WebhookIn, WebhookOut
from app.core import catalogue, datasets, jobs, names, webhooks
from app.core.errors import CheckpointInvalid, InvalidRequest, JobStateConflict, NotFound
from app.core.records import Dataset, Job
from app.core.storage import Storage
from app.serving.loader import read_meta
from app.webhooks.addresses import destination
from models import errors as models_errors
from models.config import NetworkConfig, TextConfig, TrainConfig
from models.presets import FROM_A_BASE, PRESETS, preset, preset_resolutions, takes_text
from models.text import build_encoder

DEFAULT_PRESET: Final = "tiny"
NO_ENCODER: Final = "none"
CHANNELS: Final = 3  # of every prepared picture


@dataclass(frozen=True)
class Base:
    """The weights a training starts from."""

    reference: str  # name@sha256: also tomorrow, when the name means newer ones
    network: NetworkConfig


def find_base(session: Session, storage: Storage, reference: str) -> Base:
    """What a model, or one of its checkpoints, gives a training to start from."""
    try:
        found = catalogue.resolve(session, reference)
    except (NotFound, InvalidRequest) as error:
        raise type(error)(error.message, code=error.error_code, param="base") from error
    sha256 = found.checkpoint.sha256
    try:
        meta = read_meta(storage.path(sha256))
    except models_errors.CheckpointInvalid as error:
        raise CheckpointInvalid(f"Base {reference!r}: {error}", param="base") from error
    return Base(f"{found.model.name}@{sha256}", meta.config.network)


def configure(wish: TrainingIn, dataset: Dataset, base: Base | None) -> TrainConfig:
    """The whole configuration of what was asked for, or InvalidRequest. Loading a text encoder may take seconds."""
    if wish.config is None:
        config = _from_preset(wish, dataset, base)
    else:
        config = _with_budget(_own_config(wish, wish.config), wish.budget, wish.seed)
    _require_fit(config, dataset)
    if base is not None and base.network.architecture != config.network.architecture:
        message = (
            f"Base {base.reference.partition('@')[0]!r} is a {base.network.architecture}, this would be a "
            f"{config.network.architecture}: nothing of it fits. Preset {FROM_A_BASE!r} takes the base's own networks."
        )
        raise InvalidRequest(message, code="base_does_not_fit", param="base")
    return config


def told_at(wish: WebhookIn | None, listed: Collection[str]) -> WebhookOut | None:
    """Where a training is to be told of, or InvalidRequest where that may not be; listed: hosts that may be private."""
    if wish is None:
        return None
    destination(wish.url, listed)
    secret = webhooks.new_secret() if wish.secret is None else webhooks.check_secret(wish.secret)
    return WebhookOut(url=wish.url, secret=secret)


def submit(session: Session, request: dict[str, Any], webhook: WebhookOut | None) -> tuple[Job, TrainingOut]:
    """Queue a training inside the caller's transaction: the row to dispatch after it, and how it is shown."""
    datasets.require_ready(datasets.find(session, request["dataset"]))
    names.require_free(session, request["name"])
    job = jobs.submit(session, "train", request)
    if webhook is not None:
        webhooks.attach(session, job.id, webhook.url, webhook.secret)
    shown = JobOut.of(job, jobs.position(session, job))
    return job, TrainingOut(**shown.model_dump(), webhook=webhook)


def branch_request(session: Session, job_id: str, wish: BranchIn) -> dict[str, Any]:
    """What a training asks for that goes on from another's saved state, or from one of its checkpoints."""
    job = jobs.find(session, job_id)
    if job.kind != "train":
        raise JobStateConflict(f"Job {job.id} is a {job.kind}; only a training can be branched.")
    own = TrainConfig.model_validate(job.request["config"])
    config = _with_budget(_changed(own, wish.changes), wish.budget, wish.seed)
    request = {"dataset": job.request["dataset"], "name": names.check_name(wish.name)}
    if wish.checkpoint is not None:
        request |= {"base": _own_checkpoint(session, job, wish.checkpoint)}
    elif config.network != own.network:
        message = "A branch of the exact state keeps its networks: name a checkpoint to change network, or leave it."
        raise InvalidRequest(message, code="branch_keeps_network", param="changes.network")
    elif job.state_sha256 is None:
        raise JobStateConflict(f"Job {job.id} has saved no state yet; it does at its first snapshot.")
    else:
        request |= {"branch": job.state_sha256}
    _require_fit(config, datasets.find(session, job.request["dataset"]))
    return request | {"config": config.model_dump(mode="json")}


def text_of(dataset: Dataset, encoder: str | None = None, base: NetworkConfig | None = None) -> TextConfig | None:
    """How a dataset's captions and labels reach the networks: by default they do, where there are any.

    encoder: "none", or the id of one. base: networks whose own way of reading is kept.
    """
    if encoder == NO_ENCODER or (encoder is None and not datasets.says_something(dataset)):
        return None
    if encoder is None:
        return (base.text if base is not None else None) or TextConfig()
    if not datasets.says_something(dataset):
        message = f"Dataset {dataset.id} has no captions and no labels; leave encoder out."
        raise InvalidRequest(message, code="encoder_does_not_fit", param="encoder")
    try:
        size = build_encoder(encoder).size
    except models_errors.EncoderUnavailable as error:
        raise InvalidRequest(str(error), code="encoder_unavailable", param="encoder") from error
    return TextConfig(encoder=encoder, features=size)


def _from_preset(wish: TrainingIn, dataset: Dataset, base: Base | None) -> TrainConfig:
    name, resolution, budget = wish.preset or DEFAULT_PRESET, dataset.resolution or 0, wish.budget or Budget()
    if name not in PRESETS:
        message = f"There is no preset {name!r}; there are {', '.join(sorted(PRESETS))}."
        raise InvalidRequest(message, code="preset_unknown", param="preset")
    if name == FROM_A_BASE and base is None:
        message = f"Preset {name!r} starts from a trained model: name it as base. GET /v1/models lists what there is."
        raise InvalidRequest(message, code="base_missing", param="base")
    network = base.network if base is not None and name == FROM_A_BASE else None
    if resolution not in (preset_resolutions(name) if network is None else (network.resolution,)):
        raise _misfit(name, resolution, network)
    text = text_of(dataset, wish.encoder, network)
    try:
        config = preset(
            name,
            resolution,
            network=network,
            text=text,
            total_kimg=budget.kimg,
            max_minutes=budget.minutes,
            seed=wish.seed,
        )
    except models_errors.ConfigInvalid as error:
        raise InvalidRequest(str(error), code="config_invalid", param="preset") from error
    if wish.encoder not in {None, NO_ENCODER} and not takes_text(config.network):
        message = f"The networks of preset {name!r} take no texts; choose another preset, or leave encoder out."
        raise InvalidRequest(message, code="encoder_does_not_fit", param="encoder")
    return config


def _own_config(wish: TrainingIn, config: TrainConfig) -> TrainConfig:
    if wish.preset is not None:
        raise InvalidRequest("Give a preset or a config, not both.", code="preset_and_config", param="preset")
    if wish.encoder is not None:
        message = "A config says itself what reads texts, in network.text; leave encoder out."
        raise InvalidRequest(message, code="encoder_does_not_fit", param="encoder")
    return config


def _with_budget(config: TrainConfig, budget: Budget | None, seed: int | None) -> TrainConfig:
    changes: dict[str, float | int | None] = {} if seed is None else {"seed": seed}
    if budget is not None and (budget.kimg is not None or budget.minutes is not None):
        changes |= {"total_kimg": budget.kimg, "max_minutes": budget.minutes}
    return config.model_copy(update=changes)


def _require_fit(config: TrainConfig, dataset: Dataset) -> None:
    network, resolution = config.network, dataset.resolution or 0
    if network.resolution != resolution:
        message = f"The config is for {network.resolution} px; set network.resolution to {resolution}."
    elif network.channels != CHANNELS:
        message = f"The config is for {network.channels} channels; datasets have {CHANNELS}."
    elif network.text is not None and not datasets.says_something(dataset):
        message = f"The config is for captions or labels, and dataset {dataset.id} has none; set network.text to null."
    else:
        return
    raise InvalidRequest(message, code="config_does_not_fit", param="config")


def _misfit(name: str, resolution: int, network: NetworkConfig | None) -> InvalidRequest:
    sizes = ", ".join(str(size) for size in (preset_resolutions(name) if network is None else (network.resolution,)))
    others = [
        other
        for other in sorted(PRESETS)
        if other not in {name, FROM_A_BASE} and resolution in preset_resolutions(other)
    ]
    advice = f"Presets that fit: {', '.join(others)}." if others else "Upload the artwork again with that resolution."
    message = f"Preset {name!r} fits pictures of {sizes} px; this dataset has {resolution} px. {advice}"
    return InvalidRequest(message, code="preset_does_not_fit", param="preset")


def _changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """A configuration with some of its fields, at any depth, in other words."""
    try:
        return TrainConfig.model_validate(_merged(config.model_dump(mode="json"), changes))
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", "changes", *item["loc"])} for item in error.errors()]
        ) from error


def _merged(whole: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(whole)
    for field, value in changes.items():
        old = merged.get(field)
        merged[field] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _own_checkpoint(session: Session, job: Job, prefix: str) -> str:
    """name@sha256 of a checkpoint that this job made."""
    name = job.request["name"]
    message = f"Job {job.id} has no checkpoint beginning with {prefix!r}. GET /v1/models/{name} lists those there are."
    missing = NotFound(message, code="checkpoint_not_found", param="checkpoint")
    try:
        found = catalogue.resolve(session, f"{name}@{prefix}")
    except NotFound as error:
        raise missing from error
    if found.checkpoint.job_id != job.id:
        raise missing
    return f"{name}@{found.checkpoint.sha256}"
