"""First schema of the primary database."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from shadowfault_api.store.types import ExactPrice, UtcDateTime, json_document, row_id, uuid_text

revision = "primary_0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSAL: Final = "evidence_records is append-only: a record is never changed or removed"

_POSTGRESQL_TRIGGERS: Final = (
    f"""
    CREATE FUNCTION evidence_records_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE TRIGGER evidence_records_immutable BEFORE UPDATE OR DELETE ON evidence_records
    FOR EACH ROW EXECUTE FUNCTION evidence_records_refuse()
    """,
    """
    CREATE TRIGGER evidence_records_no_truncate BEFORE TRUNCATE ON evidence_records
    FOR EACH STATEMENT EXECUTE FUNCTION evidence_records_refuse()
    """,
)

_SQLITE_TRIGGERS: Final = (
    f"""
    CREATE TRIGGER evidence_records_no_update BEFORE UPDATE ON evidence_records
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,
    f"""
    CREATE TRIGGER evidence_records_no_delete BEFORE DELETE ON evidence_records
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,
    # INSERT OR REPLACE deletes the old row, and fires no DELETE trigger unless recursive_triggers is on.
    f"""
    CREATE TRIGGER evidence_records_no_replace BEFORE INSERT ON evidence_records
    WHEN EXISTS (SELECT 1 FROM evidence_records WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END
    """,  # noqa: S608 - a constant, no value from outside
)


def upgrade() -> None:
    _listings()
    _outbox()
    _evidence()
    _verification()


def _listings() -> None:
    op.create_table(
        "listings",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("price", ExactPrice(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_listings"),
    )
    op.create_table(
        "listing_views",
        sa.Column("listing_id", uuid_text(), nullable=False),
        sa.Column("views", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("listing_id", name="pk_listing_views"),
        sa.ForeignKeyConstraint(
            ["listing_id"], ["listings.id"], name="fk_listing_views_listing_id", ondelete="CASCADE"
        ),
    )


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", row_id(), nullable=False, autoincrement=True),
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("entity_id", uuid_text(), nullable=False),
        sa.Column("operation", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("payload", json_document()),
        sa.Column("request_id", sa.String(128)),
        sa.Column("request_id_given", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, server_default="pending"),
        sa.Column("failure_type", sa.String(32)),
        sa.Column("experiment", sa.String(320)),
        sa.Column("experiment_uid", sa.String(64)),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("claimed_until", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.CheckConstraint("operation IN ('create', 'update', 'delete')", name=op.f("ck_outbox_operation")),
        sa.CheckConstraint("state IN ('pending', 'failed')", name=op.f("ck_outbox_state")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_state_id", "outbox", ["state", "id"])
    op.create_index(
        "ix_outbox_entity_type_entity_id_version", "outbox", ["entity_type", "entity_id", "version"]
    )


def _evidence() -> None:
    op.create_table(
        "evidence_records",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("occurred_at", UtcDateTime(), nullable=False),
        sa.Column("control_id", sa.String(32), nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("event_type", sa.String(64), nullable=False),
        sa.Column("event_outcome", sa.String(32), nullable=False),
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("entity_id", uuid_text(), nullable=False),
        sa.Column("request_id", sa.String(128)),
        sa.Column("details", json_document(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evidence_records"),
    )
    op.create_index(
        "ix_evidence_records_event_type_occurred_at", "evidence_records", ["event_type", "occurred_at"]
    )
    op.create_index(
        "ix_evidence_records_entity_type_entity_id", "evidence_records", ["entity_type", "entity_id"]
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    for statement in _POSTGRESQL_TRIGGERS if postgresql else _SQLITE_TRIGGERS:
        op.execute(statement)


def _verification() -> None:
    op.create_table(
        "discrepancies",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("entity_id", uuid_text(), nullable=False),
        sa.Column("discrepancy_type", sa.String(32), nullable=False),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("experiment", sa.String(320)),
        sa.Column("experiment_uid", sa.String(64)),
        sa.Column("first_seen_at", UtcDateTime(), nullable=False),
        sa.Column("last_seen_at", UtcDateTime(), nullable=False),
        sa.Column("resolved_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_discrepancies"),
    )
    op.create_index(
        "uq_discrepancies_open",
        "discrepancies",
        ["entity_type", "entity_id"],
        unique=True,
        postgresql_where=sa.text("resolved_at IS NULL"),
        sqlite_where=sa.text("resolved_at IS NULL"),
    )
    op.create_index(
        "ix_discrepancies_entity_type_discrepancy_type", "discrepancies", ["entity_type", "discrepancy_type"]
    )
    op.create_table(
        "discrepancy_checks",
        sa.Column("entity_type", sa.String(64), nullable=False),
        sa.Column("last_check_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("entity_type", name="pk_discrepancy_checks"),
    )
    op.create_table(
        "job_runs",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime()),
        sa.Column("result", json_document()),
        sa.PrimaryKeyConstraint("id", name="pk_job_runs"),
        sa.CheckConstraint("trigger IN ('schedule', 'admin', 'cli')", name=op.f("ck_job_runs_trigger")),
        sa.CheckConstraint("state IN ('running', 'succeeded', 'failed')", name=op.f("ck_job_runs_state")),
    )
    op.create_index("ix_job_runs_job_started_at", "job_runs", ["job", "started_at"])


def downgrade() -> None:
    raise NotImplementedError("evidence is never removed: restore the database from its backup instead")
