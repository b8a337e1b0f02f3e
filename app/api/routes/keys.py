"""API keys over HTTP: made, listed and revoked by those who administer."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import select

from app.api import idempotency, paging
from app.api.deps import MayAdminister, PagingDep, Services, ServicesDep
from app.api.schemas.keys import KeyIn, KeyMade, KeyOut
from app.api.schemas.lists import Deleted, Page
from app.core import keys
from app.core.errors import Conflict
from app.core.records import ApiKey

router = APIRouter(prefix="/v1/keys", tags=["operating"], dependencies=[MayAdminister])


@router.post("", status_code=201, response_model=KeyMade)
async def create(body: KeyIn, services: ServicesDep) -> Response:
    """Make a key. It is shown in this answer and never again, not even to the same request sent again."""
    response = await asyncio.to_thread(_create, services, body)
    services.gate.forget()
    response.headers["cache-control"] = "no-store"
    return response


@router.get("")
def list_(services: ServicesDep, paging_: PagingDep) -> Page[KeyOut]:
    """All keys, without themselves; revoked ones too."""
    with services.db.read() as session:
        return paging.page_of_rows(
            session,
            ApiKey,
            select(ApiKey),
            paging_,
            key=ApiKey.id,
            created_at=ApiKey.created_at,
            show=KeyOut.of,
        )


@router.delete("/{key}")
async def revoke(key: str, services: ServicesDep) -> Deleted:
    """End a key: here at once, in other replicas within half a minute. The list still shows that there was one."""
    await asyncio.to_thread(_revoke, services, key)
    services.gate.forget()
    return Deleted(id=key, object="key")


def _create(services: Services, wish: KeyIn) -> Response:
    with services.db.begin() as session:
        row, key = keys.create(
            session,
            wish.name,
            list(dict.fromkeys(wish.scopes)),
            model=wish.model,
            rate=wish.rate,
            origins=wish.origins,
            expires_at=wish.expires_at,
            publishable=bool(wish.publishable),
        )
        session.flush()
        made = KeyMade(**KeyOut.of(row).model_dump(), key=key)
        message = f"This request made the key {row.id}, which was shown once. Revoke it and make another."
        later = Conflict(message, code="key_shown")
        return idempotency.made_secret(session, made, 201, location=f"/v1/keys/{row.id}", later=later)


def _revoke(services: Services, key: str) -> None:
    with services.db.begin() as session:
        keys.revoke(session, key)
