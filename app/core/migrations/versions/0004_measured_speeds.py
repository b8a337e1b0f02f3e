"""How fast trainings run on the machine that trains, measured once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calibrations",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("taken_until", sa.Double(), nullable=True),
        sa.Column("device", sa.String(length=200), nullable=True),
        sa.Column("device_bytes", sa.BigInteger(), nullable=True),
        sa.Column("threads", sa.Integer(), nullable=True),
        sa.Column("torch", sa.String(length=40), nullable=True),
        sa.Column("seconds_per_kimg", sa.Double(), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=True),
        sa.Column("busy", sa.Boolean(), nullable=False),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )


def downgrade() -> None:
    op.drop_table("calibrations")
