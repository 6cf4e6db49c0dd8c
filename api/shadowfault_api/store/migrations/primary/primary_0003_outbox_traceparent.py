"""The outbox keeps the trace a write belongs to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "primary_0003"
down_revision = "primary_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("traceparent", sa.String(64)))
