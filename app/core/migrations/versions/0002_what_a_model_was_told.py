"""What a model was told in training: its labels, the words of its captions, and what encodes them.

The columns are added in place. A table made anew, as a batch would, takes every model's checkpoints along when SQLite
drops the old one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("labels", "vocabulary"):
        op.add_column("models", sa.Column(name, sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("models", sa.Column("encoder", sa.String(length=200), nullable=True))


def downgrade() -> None:
    for name in ("encoder", "vocabulary", "labels"):
        op.drop_column("models", name)
