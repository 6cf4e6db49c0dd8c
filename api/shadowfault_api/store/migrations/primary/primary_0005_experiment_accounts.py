"""What each process served under an experiment, and the account that was given of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shadowfault_api.store.types import UtcDateTime, json_document, uuid_text

revision = "primary_0005"
# Numbers are handed out ahead of time; the chain is in the order in which they were merged.
down_revision = "primary_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "experiment_processes",
        sa.Column("experiment_uid", sa.String(128), nullable=False),
        sa.Column("process_id", uuid_text(), nullable=False),
        sa.Column("opened_at", UtcDateTime(), nullable=False),
        sa.Column("counted_at", UtcDateTime(), nullable=False),
        sa.Column("closed_at", UtcDateTime()),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_uid", "process_id", name="pk_experiment_processes"),
    )
    op.create_table(
        "experiment_accounts",
        sa.Column("experiment_uid", sa.String(128), nullable=False),
        sa.Column("asked_at", UtcDateTime(), nullable=False),
        sa.Column("run_id", uuid_text(), nullable=False),
        sa.Column("result", json_document()),
        sa.PrimaryKeyConstraint("experiment_uid", name="pk_experiment_accounts"),
    )
