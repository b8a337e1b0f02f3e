"""The documentation as a page: Swagger UI, from this package and from nowhere else."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.requests import Request

from app.api.access import DOCS_PARTS

router = APIRouter(include_in_schema=False)

FOLDER: Final = Path(str(files("app.api") / "docs"))
CACHE: Final = "public, max-age=3600"  # seconds; an update of Ganvas may bring another version
# Swagger UI styles its elements one by one, and shows pictures that were tried out.
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css"}


@router.get("/docs")
def page() -> FileResponse:
    """What there is to ask for, to read and to try."""
    return FileResponse(FOLDER / "index.html", media_type="text/html", headers={"content-security-policy": PAGE_POLICY})


def part(request: Request) -> FileResponse:
    """A script or style of the page."""
    place = FOLDER / request.url.path.rpartition("/")[2]
    return FileResponse(place, media_type=MEDIA_TYPES[place.suffix], headers={"cache-control": CACHE})


for path in DOCS_PARTS:
    router.add_api_route(path, part)
