"""Sweeps of the verifier that go on where they stopped, and what incremental passes ask for.

The index is built while writers wait: about a second for each million rows. On a big table build it before,
beside the writers; then nothing is done here:

    CREATE INDEX CONCURRENTLY ix_listings_updated_at_id ON listings (updated_at, id)
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shadowfault_api.store.types import UtcDateTime, json_document, uuid_text

revision = "primary_0006"
down_revision = "primary_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_listings_updated_at_id", "listings", ["updated_at", "id"], if_not_exists=True)
    op.add_column("discrepancy_checks", sa.Column("watermark", UtcDateTime()))
    op.create_table(
        "verifier_sweeps",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("run_id", uuid_text(), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("watermark", UtcDateTime(), nullable=False),
        sa.Column("estimated_rows", sa.BigInteger(), nullable=False),
        sa.Column("due_at", UtcDateTime()),
        sa.Column("finished_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_verifier_sweeps"),
    )
    op.create_index(
        "uq_verifier_sweeps_going_on",
        "verifier_sweeps",
        ["entity_type"],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
        sqlite_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "verifier_parts",
        sa.Column("sweep_id", uuid_text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("after_key", json_document()),
        sa.Column("upto_key", json_document()),
        sa.Column("cursor_key", json_document()),
        sa.Column("rows_primary", sa.BigInteger(), nullable=False),
        sa.Column("rows_shadow", sa.BigInteger(), nullable=False),
        sa.Column("rows_looked_at", sa.BigInteger(), nullable=False),
        sa.Column("in_flight", sa.BigInteger(), nullable=False),
        sa.Column("found_new", sa.BigInteger(), nullable=False),
        sa.Column("persisting", sa.BigInteger(), nullable=False),
        sa.Column("resolved", sa.BigInteger(), nullable=False),
        sa.Column("scan_seconds", sa.Float(), nullable=False),
        sa.Column("recheck_seconds", sa.Float(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("ended_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("sweep_id", "number", name="pk_verifier_parts"),
    )
