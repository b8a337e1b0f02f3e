"""Blending: two checkpoints of one lineage make a new model."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from app.api import idempotency
from app.api.deps import MayTrain, Services, ServicesDep
from app.api.layers import layers_of
from app.api.schemas.blending import BlendIn, LayersIn
from app.api.schemas.jobs import JobOut
from app.core import catalogue, jobs, names
from app.core.catalogue import Resolved
from app.core.errors import InvalidRequest, NotFound
from app.serving.loader import read_meta
from models.config import NetworkConfig

router = APIRouter(prefix="/v1/models/{model}", tags=["models"], dependencies=[MayTrain])


@router.post("/blend", status_code=202, response_model=JobOut)
def blend(model: str, body: BlendIn, services: ServicesDep) -> Response:
    """Make a new model whose layers come from this one, from another, or from in between; both stay as they are.

    Only weights that come from the same beginning can be blended: checkpoints of one training, or of trainings that
    started from one another.
    """
    name = names.check_name(body.name)
    with services.db.begin() as session:
        first = catalogue.resolve(session, model)
        try:
            second = catalogue.resolve(session, body.with_)
        except (NotFound, InvalidRequest) as error:
            raise type(error)(error.message, code=error.error_code, param="with") from error
        names.require_free(session, name)
        request = {"kind": "blend", "name": name} | _wish(services, first, second, body)
        job = jobs.submit(session, "render", request)
        shown = JobOut.of(job, jobs.position(session, job))
        answer = idempotency.made(session, shown, 202, location=f"/v1/jobs/{job.id}")
    services.dispatcher.dispatch(job)
    return answer


def _wish(services: Services, first: Resolved, second: Resolved, body: BlendIn) -> dict[str, Any]:
    """What the job shall do, every default written out."""
    networks = [read_meta(services.storage.path(found.checkpoint.sha256)).config.network for found in (first, second)]
    _require_same_shape(first, second, *networks)
    one = body.amounts if isinstance(body.amounts, float) else 0.0
    return {
        "first": f"{first.model.name}@{first.checkpoint.sha256}",
        "second": f"{second.model.name}@{second.checkpoint.sha256}",
        "amounts": _amounts(body.amounts, len(networks[0].generator_widths)),
        "mapping": one if body.mapping is None else body.mapping,
    }


def _require_same_shape(first: Resolved, second: Resolved, mine: NetworkConfig, other: NetworkConfig) -> None:
    for field in NetworkConfig.model_fields:
        has, wants = getattr(other, field), getattr(mine, field)
        if has != wants:
            message = (
                f"The networks of {second.model.name!r} differ from those of {first.model.name!r} in {field}: {has} "
                f"and {wants}. Only checkpoints of one training, or of trainings that started from one another, blend."
            )
            raise InvalidRequest(message, code="blend_does_not_fit", param="with")


def _amounts(wish: float | list[float] | LayersIn, stages: int) -> list[float]:
    """An amount for each stage of the networks."""
    if isinstance(wish, float):
        return [wish] * stages
    if isinstance(wish, LayersIn):
        chosen = layers_of(wish.layers, stages, "amounts.layers")
        return [wish.amount if stage in chosen else 0.0 for stage in range(stages)]
    if len(wish) != stages:
        message = f"amounts lists {len(wish)}; the networks of this model have {stages} layers."
        raise InvalidRequest(message, param="amounts")
    return wish
