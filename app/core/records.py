"""The rows: datasets, jobs, models with checkpoints and directions, latents, artworks, measured speeds, API keys, and
what is owed to callers: answers given again, webhooks, the audit log."""

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def new_id(noun: str) -> str:
    """A server-made id such as `ds_1f0c…`: 96 random bits behind the noun's prefix."""
    return f"{noun}_{secrets.token_hex(12)}"


def utc_now() -> datetime:
    """The wall clock in UTC."""
    return datetime.now(UTC)


class UtcTime(TypeDecorator[datetime]):
    """A timestamp that is aware and UTC on the way in and on the way out, also where SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back an aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Record(DeclarativeBase):
    """Base of all rows."""

    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, datetime: UtcTime}  # noqa: RUF012 - SQLAlchemy's own form


class Dataset(Record):
    """Artwork prepared for training: one array and one manifest in storage, named here once both are whole."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    modality: Mapped[str] = mapped_column(String(20), default="image")
    status: Mapped[str] = mapped_column(String(20), default="preparing")
    request: Mapped[dict[str, Any]]
    source_sha256: Mapped[str] = mapped_column(String(64))
    array_sha256: Mapped[str | None] = mapped_column(String(64))
    manifest_sha256: Mapped[str | None] = mapped_column(String(64))
    resolution: Mapped[int | None]
    sent: Mapped[int] = mapped_column(default=0)
    count: Mapped[int] = mapped_column(default=0)
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    captions: Mapped[int] = mapped_column(default=0)
    labels: Mapped[list[str]] = mapped_column(default=list)
    verdicts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    readiness: Mapped[str | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    job_id: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Job(Record):
    """A promise to do something long; only app/core/jobs.py changes `status`, `epoch` and the lease."""

    __tablename__ = "jobs"
    __table_args__ = (Index("jobs_by_status", "status", "kind", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    status: Mapped[str] = mapped_column(String(20), default="queued")
    request: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    message: Mapped[str] = mapped_column(String(500), default="")
    eta_seconds: Mapped[float | None]
    attempts: Mapped[int] = mapped_column(default=0)
    fruitless: Mapped[int] = mapped_column(default=0)  # attempts since the last saved state
    epoch: Mapped[int] = mapped_column(default=1)  # fences every publish: who holds an older one is ignored
    lease_until: Mapped[float | None]  # seconds since 1970 by the database's clock
    dispatched_at: Mapped[float | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    cancel_requested_at: Mapped[float | None]  # by the database's clock: who does not heed it in time is killed
    key_id: Mapped[str | None] = mapped_column(String(40))  # of who asked; null on loopback
    state_sha256: Mapped[str | None] = mapped_column(String(64))  # what the next attempt starts from
    previous_state_sha256: Mapped[str | None] = mapped_column(String(64))  # where the newest cannot be read
    state_kimg: Mapped[float | None]
    preview_sha256: Mapped[str | None] = mapped_column(String(64))  # the latest picture of a drawing in the making
    parts: Mapped[list[str]] = mapped_column(default=list)  # sha256 of what is finished of it, in order
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobEvent(Record):
    """One thing that happened to a job; `id` is the sequence number that clients replay from."""

    __tablename__ = "job_events"
    __table_args__ = (Index("job_events_by_job", "job_id", "id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Model(Record):
    """What an artist names and serves; `promoted` is the checkpoint that the bare name means."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    architecture: Mapped[str] = mapped_column(String(40))
    modality: Mapped[str] = mapped_column(String(20), default="image")
    resolution: Mapped[int]
    z_dim: Mapped[int]
    w_dim: Mapped[int]
    num_ws: Mapped[int]
    labels: Mapped[list[str]] = mapped_column(default=list)
    vocabulary: Mapped[list[str]] = mapped_column(default=list)  # words it was trained with, the most frequent first
    encoder: Mapped[str | None] = mapped_column(String(200))  # of its texts; null: it knows none
    dataset: Mapped[str | None] = mapped_column(String(200))
    job_id: Mapped[str | None] = mapped_column(String(40))
    promoted: Mapped[str | None] = mapped_column(String(64))
    chosen: Mapped[bool] = mapped_column(default=False)  # by the artist: training no longer promotes
    license: Mapped[str | None] = mapped_column(String(200))
    parents: Mapped[list[str]] = mapped_column(default=list)  # name@sha256 of the weights it was blended of
    owned_by: Mapped[str] = mapped_column(String(100), default="you")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Checkpoint(Record):
    """One servable state of a model's generator, named by the sha256 of its file."""

    __tablename__ = "checkpoints"
    __table_args__ = (Index("checkpoints_by_job", "job_id", "kimg"),)

    model_name: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str | None] = mapped_column(String(40))
    kimg: Mapped[float]
    bytes: Mapped[int] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    sheet_sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Latent(Record):
    """A stored w, or a step in w: float32 [num_ws, w_dim], little-endian, named by the sha256 of these bytes."""

    __tablename__ = "latents"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    num_ws: Mapped[int]
    w_dim: Mapped[int]
    job_id: Mapped[str | None] = mapped_column(String(40))  # that found it
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Direction(Record):
    """A way to change a model's pictures, named and scaled by the artist; each checkpoint has its own vector."""

    __tablename__ = "directions"
    __table_args__ = (UniqueConstraint("model_name", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    model_name: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(60))
    method: Mapped[str] = mapped_column(String(20))  # sefa or pca
    layers: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))  # of w that it changes; null: all
    position: Mapped[int] = mapped_column(default=0)  # in the artist's order
    scale: Mapped[float] = mapped_column(default=1.0)  # standard deviations of w that an amount of 1 goes
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class DirectionVector(Record):
    """Where a direction leads in the w of one checkpoint: found there, carried over from another, or lost."""

    __tablename__ = "direction_vectors"

    direction_id: Mapped[str] = mapped_column(ForeignKey("directions.id", ondelete="CASCADE"), primary_key=True)
    checkpoint: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector_sha256: Mapped[str | None] = mapped_column(String(64))  # latent of one standard deviation; null: lost
    offset_sha256: Mapped[str | None] = mapped_column(String(64))  # the same at the direction's scale
    share: Mapped[float | None]  # of the variance of w; null: carried over
    score: Mapped[float | None]  # how alike pictures change there and where it came from, to 1; null: found here
    carried_from: Mapped[str | None] = mapped_column(String(64))  # checkpoint
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Artwork(Record):
    """A kept picture, sheet or film: its file and its recipe, which outlive the model."""

    __tablename__ = "artworks"
    __table_args__ = (
        Index("artworks_by_time", "created_at", "id"),
        Index("artworks_by_point", "point_hash"),
        Index("artworks_by_model", "model", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))  # picture, sheet or film
    title: Mapped[str] = mapped_column(String(200), default="")
    starred: Mapped[bool] = mapped_column(default=False)
    model: Mapped[str] = mapped_column(String(200))  # as it was called; it may be gone
    checkpoint: Mapped[str] = mapped_column(String(64))
    recipe: Mapped[dict[str, Any]]
    recipe_hash: Mapped[str] = mapped_column(String(64))
    point_hash: Mapped[str | None] = mapped_column(String(64))  # of what a picture shows, whatever its size
    text: Mapped[str] = mapped_column(Text, default="")  # title, tags, prompt and label in lower case, to be found by
    relation: Mapped[str | None] = mapped_column(String(20))  # to its parents: variation, child, mix ...
    job_id: Mapped[str | None] = mapped_column(String(40))  # that drew it
    file_sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(100))
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ArtworkTag(Record):
    """A word the artist put on an artwork."""

    __tablename__ = "artwork_tags"
    __table_args__ = (Index("artwork_tags_by_tag", "tag"),)

    artwork_id: Mapped[str] = mapped_column(ForeignKey("artworks.id", ondelete="CASCADE"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(60), primary_key=True)


class ArtworkParent(Record):
    """What an artwork was made of, its parents first and then theirs; each may be kept later, or never."""

    __tablename__ = "artwork_parents"
    __table_args__ = (Index("artwork_parents_by_point", "point_hash"),)

    artwork_id: Mapped[str] = mapped_column(ForeignKey("artworks.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    point_hash: Mapped[str] = mapped_column(String(64))


class Calibration(Record):
    """How fast a training with these settings runs on the machine that trains; only app/core/calibrations.py writes."""

    __tablename__ = "calibrations"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)  # of the settings
    config: Mapped[dict[str, Any]]
    wanted: Mapped[bool] = mapped_column(default=True)  # a worker shall measure it, or confirm what it once measured
    taken_until: Mapped[float | None]  # by a worker; seconds since 1970 by the database's clock
    device: Mapped[str | None] = mapped_column(String(200))  # name of the processor or GPU it was measured on
    device_bytes: Mapped[int | None] = mapped_column(BigInteger)  # memory of it
    threads: Mapped[int | None]
    torch: Mapped[str | None] = mapped_column(String(40))  # version
    seconds_per_kimg: Mapped[float | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    busy: Mapped[bool] = mapped_column(default=False)  # a training ran beside it, so it was slower than it is alone
    error: Mapped[str | None] = mapped_column(String(500))  # why there is no figure
    measured_at: Mapped[datetime | None]
    confirmed_at: Mapped[datetime | None]  # that the machine is still the one it was measured on


class ApiKey(Record):
    """A key's fingerprint and what it may do; the key itself was shown once and is not kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(20), default="")  # how the key begins, to tell it from others
    scopes: Mapped[list[str]]
    publishable: Mapped[bool] = mapped_column(default=False)  # may stand in a page: it only draws from one model
    model: Mapped[str | None] = mapped_column(String(100))  # the only one it is for; null: all
    rate: Mapped[str | None] = mapped_column(String(40))  # such as 60/minute; null: the setting's
    origins: Mapped[list[str]] = mapped_column(default=list)  # of pages that may use it; empty: no page is asked
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute or so
    revoked_at: Mapped[datetime | None]


class IdempotentRequest(Record):
    """A request that came with a key of its sender's own, and how it was answered: told again for a day."""

    __tablename__ = "idempotent_requests"
    __table_args__ = (Index("idempotent_requests_by_time", "created_at"),)

    owner: Mapped[str] = mapped_column(String(40), primary_key=True)  # id of the API key; "loopback" without one
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str] = mapped_column(String(300))  # method and path
    fingerprint: Mapped[str | None] = mapped_column(String(64))  # of the body; null until all of it has come
    locked_until: Mapped[float | None]  # by the database's clock, while it is in the making; null: answered
    status: Mapped[int | None]  # of the answer
    headers: Mapped[dict[str, Any]] = mapped_column(default=dict)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    body_sha256: Mapped[str | None] = mapped_column(String(64))  # blob of a body too large for a row
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Webhook(Record):
    """Where to tell of a job, and the secret that signs what is told."""

    __tablename__ = "webhooks"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(String(100))  # whsec_..., shown once; signing needs the secret itself
    progress_at: Mapped[float | None]  # when progress was last told, by the database's clock
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class WebhookMessage(Record):
    """One thing to tell over a webhook, and how the telling went."""

    __tablename__ = "webhook_messages"
    __table_args__ = (
        Index("webhook_messages_by_job", "job_id", "created_at"),
        Index("webhook_messages_due", "next_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("webhooks.job_id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(40))
    payload: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float | None]  # when to try (again), by the database's clock; null: delivered, or given up
    taken_until: Mapped[float | None]  # by a sender; another may try when that has passed
    delivered_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(String(500))  # why the last try failed
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class AuditEntry(Record):
    """Who made or revoked a key, or deleted something, and when; never changed, never deleted."""

    __tablename__ = "audit_entries"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    actor: Mapped[str] = mapped_column(String(40))  # id of an API key, "loopback", "terminal" or "studio"
    address: Mapped[str | None] = mapped_column(String(100))  # where the request came from
    action: Mapped[str] = mapped_column(String(40))  # such as key.created or model.deleted
    target: Mapped[str] = mapped_column(String(200))  # id or name of what it was done to
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
