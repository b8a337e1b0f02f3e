"""Training: advice beforehand, and the job that turns a ready dataset into a model."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from app.api import advising, idempotency, trainings
from app.api.deps import MayTrain, ServicesDep
from app.api.schemas.training import Advice, TrainingIn, TrainingOut
from app.core import datasets, names

router = APIRouter(prefix="/v1/training", tags=["training"], dependencies=[MayTrain])

MEASURING_RETRY_SECONDS: Final = 15  # about what one more preset takes to be measured


@router.get("/presets")
async def presets(
    services: ServicesDep,
    response: Response,
    dataset: Annotated[str, Query(max_length=40, description="Id of a ready dataset.")],
) -> Advice:
    """Which preset suits this dataset on the machine that trains, and how long each takes.

    The first time, a worker measures each for some seconds; what it does not know within half a minute is null, and
    `Retry-After` says when to ask again.
    """
    advice = await advising.advise(services, dataset)
    if any(entry.measuring for entry in advice.data):
        response.headers["retry-after"] = str(MEASURING_RETRY_SECONDS)
    return advice


@router.post("/jobs", status_code=202, response_model=TrainingOut)
def start(body: TrainingIn, services: ServicesDep) -> Response:
    """Train a model on a dataset; it can be drawn from after the first minute, while it still trains."""
    name = names.check_name(body.name)
    webhook = trainings.told_at(body.webhook, services.settings.webhook_hosts)
    with services.db.read() as session:
        dataset = datasets.require_ready(datasets.find(session, body.dataset))
        base = None if body.base is None else trainings.find_base(session, services.storage, body.base)
    config = trainings.configure(body, dataset, base)  # no transaction waits for a text encoder
    request = {"dataset": dataset.id, "name": name, "config": config.model_dump(mode="json")}
    if base is not None:
        request |= {"base": base.reference}
    with services.db.begin() as session:
        job, shown = trainings.submit(session, request, webhook)
        answer = idempotency.made(session, shown, 202, location=f"/v1/jobs/{job.id}")
    services.dispatcher.dispatch(job)
    return answer
