"""Latents, directions and artworks; drawings in the making; what a model was blended of."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("preview_sha256", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("parts", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("models", sa.Column("parents", sa.JSON(), nullable=False, server_default="[]"))
    _latents_and_directions()
    _artworks()


def _latents_and_directions() -> None:
    op.create_table(
        "latents",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("num_ws", sa.Integer(), nullable=False),
        sa.Column("w_dim", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "directions",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("model_name", sa.String(length=100), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.Column("layers", sa.JSON(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("scale", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model_name"], ["models.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("model_name", "name"),
    )
    op.create_table(
        "direction_vectors",
        sa.Column("direction_id", sa.String(length=40), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.Column("vector_sha256", sa.String(length=64), nullable=True),
        sa.Column("offset_sha256", sa.String(length=64), nullable=True),
        sa.Column("share", sa.Double(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("carried_from", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["direction_id"], ["directions.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("direction_id", "checkpoint"),
    )


def _artworks() -> None:
    op.create_table(
        "artworks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("starred", sa.Boolean(), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("checkpoint", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("recipe_hash", sa.String(length=64), nullable=False),
        sa.Column("point_hash", sa.String(length=64), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("relation", sa.String(length=20), nullable=True),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("file_sha256", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("artworks_by_time", "artworks", ["created_at", "id"])
    op.create_index("artworks_by_point", "artworks", ["point_hash"])
    op.create_index("artworks_by_model", "artworks", ["model", "created_at"])
    op.create_table(
        "artwork_tags",
        sa.Column("artwork_id", sa.String(length=40), nullable=False),
        sa.Column("tag", sa.String(length=60), nullable=False),
        sa.ForeignKeyConstraint(["artwork_id"], ["artworks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("artwork_id", "tag"),
    )
    op.create_index("artwork_tags_by_tag", "artwork_tags", ["tag"])
    op.create_table(
        "artwork_parents",
        sa.Column("artwork_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("point_hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["artwork_id"], ["artworks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("artwork_id", "position"),
    )
    op.create_index("artwork_parents_by_point", "artwork_parents", ["point_hash"])


def downgrade() -> None:
    for table in ("artwork_parents", "artwork_tags", "artworks", "direction_vectors", "directions", "latents"):
        op.drop_table(table)
    op.drop_column("models", "parents")
    op.drop_column("jobs", "parts")
    op.drop_column("jobs", "preview_sha256")
