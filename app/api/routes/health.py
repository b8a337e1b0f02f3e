"""Health and metrics, for whatever watches the service."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import select

from app.api import documenting
from app.api.deps import MayAdminister, ServicesDep
from app.api.schemas.health import Alive, Ready
from app.core.errors import Unavailable

router = APIRouter(tags=["operating"])


@router.get("/livez")
async def livez() -> Alive:
    """The process runs."""
    return Alive()


@router.get("/readyz")
def readyz(services: ServicesDep) -> Ready:
    """Database and storage take writes; Redis down is degraded, and still 200. 503 as soon as the process is about to
    stop, while it still serves what comes: a balancer stops sending before requests are lost."""
    if services.leaving.is_set():
        raise Unavailable("This process is about to stop; ask another one.", code="leaving")
    with services.db.begin() as session:  # takes the write lock, which a read-only or full disk refuses
        session.execute(select(1))
    try:
        services.storage.check()
    except OSError as error:
        raise Unavailable(f"Storage does not take a blob: {error.strerror}.", code="storage_unavailable") from error
    up = services.dispatcher.is_up()
    return Ready(status="ok" if up else "degraded", redis="ok" if up else "down")


@router.get(
    "/metrics", dependencies=[MayAdminister], response_class=Response, responses={200: documenting.files("text/plain")}
)
def metrics(services: ServicesDep) -> Response:
    """Counts, times, queue and batches in Prometheus' text format."""
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
