"""The tables of both databases. The migrations create them; a test holds the two equal.

Rows of `outbox`: done means deleted, `pending` means in flight, `failed` explains a discrepancy until a newer
successful shadow write of the same key clears it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from shadowfault_api.store.types import ExactPrice, UtcDateTime, json_document, row_id, uuid_text

# Named constraints, so that a migration can speak of them on both databases.
_NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

primary_metadata: Final = MetaData(naming_convention=_NAMING)
shadow_metadata: Final = MetaData(naming_convention=_NAMING)

listings: Final = Table(
    "listings",
    primary_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("title", Text, nullable=False),
    Column("price", ExactPrice, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    # What an incremental pass of the verifier asks for: what changed since an instant, page by page.
    Index(None, "updated_at", "id"),
)

listing_views: Final = Table(
    "listing_views",
    primary_metadata,
    Column("listing_id", uuid_text(), ForeignKey("listings.id", ondelete="CASCADE"), primary_key=True),
    Column("views", Integer, nullable=False),
)

outbox: Final = Table(
    "outbox",
    primary_metadata,
    Column("id", row_id(), primary_key=True, autoincrement=True),
    Column("entity_type", String(64), nullable=False),
    Column("entity_id", uuid_text(), nullable=False),
    Column("operation", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("payload", json_document()),
    Column("request_id", String(128)),
    # Whether the client chose the request id: only then it keys the injector's decision, for a replay.
    Column("request_id_given", Boolean, nullable=False, server_default=false()),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, server_default="pending"),
    Column("failure_type", String(32)),
    Column("experiment", String(320)),
    Column("experiment_uid", String(64)),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("claimed_until", UtcDateTime),
    # W3C Trace Context of the request, so that the trace of a shadow write finds it.
    Column("traceparent", String(64)),
    CheckConstraint("operation IN ('create', 'update', 'delete')", name="operation"),
    CheckConstraint("state IN ('pending', 'failed')", name="state"),
    Index(None, "state", "id"),
    Index(None, "entity_type", "entity_id", "version"),
    sqlite_autoincrement=True,
)

# On PostgreSQL partitioned by month, hence the key of two columns, and with a column `txid` that only the
# sealer reads: the transaction that wrote the row. On SQLite `id` alone is the key.
evidence_records: Final = Table(
    "evidence_records",
    primary_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("occurred_at", UtcDateTime, primary_key=True),
    Column("control_id", String(32), nullable=False),
    Column("category", String(64), nullable=False),
    Column("event_type", String(64), nullable=False),
    Column("event_outcome", String(32), nullable=False),
    Column("entity_type", String(64), nullable=False),
    Column("entity_id", uuid_text(), nullable=False),
    Column("request_id", String(128)),
    Column("details", json_document(), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Index(None, "event_type", "occurred_at"),
    Index(None, "entity_type", "entity_id"),
)

# A seal is never changed. `sealed_below` is no part of what is hashed: below that position (`txid`, rowid on
# SQLite) every record had its seal when this one was made.
evidence_seals: Final = Table(
    "evidence_seals",
    primary_metadata,
    Column("number", row_id(), primary_key=True, autoincrement=False),
    Column("prev", String(64), nullable=False),
    Column("root", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    Column("sealed_at", UtcDateTime, nullable=False),
    Column("first_occurred_at", UtcDateTime, nullable=False),
    Column("last_occurred_at", UtcDateTime, nullable=False),
    Column("key_id", String(64)),
    Column("head", String(64), nullable=False),
    Column("signature", String(128)),
    Column("sealed_below", BigInteger, nullable=False),
    # A chain has no branches.
    UniqueConstraint("prev"),
)

# Which record is which leaf of which seal. It outlives the record: see `retention`.
evidence_leaves: Final = Table(
    "evidence_leaves",
    primary_metadata,
    Column("seal_number", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf_index", Integer, primary_key=True, autoincrement=False),
    Column("record_id", uuid_text(), nullable=False),
    Column("occurred_at", UtcDateTime, nullable=False),
    Column("content_hash", String(64), nullable=False),
    # Nothing is sealed twice.
    UniqueConstraint("record_id", "occurred_at"),
)

discrepancies: Final = Table(
    "discrepancies",
    primary_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("entity_type", String(64), nullable=False),
    Column("entity_id", uuid_text(), nullable=False),
    Column("discrepancy_type", String(32), nullable=False),
    Column("cause", String(32), nullable=False),
    Column("experiment", String(320)),
    Column("experiment_uid", String(64)),
    Column("first_seen_at", UtcDateTime, nullable=False),
    Column("last_seen_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime),
    # At most one open discrepancy for a key: what the verifier's "not again on the next run" rests on.
    Index(
        "uq_discrepancies_open",
        "entity_type",
        "entity_id",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
        sqlite_where=text("resolved_at IS NULL"),
    ),
    Index(None, "entity_type", "discrepancy_type"),
)

discrepancy_checks: Final = Table(
    "discrepancy_checks",
    primary_metadata,
    Column("entity_type", String(64), primary_key=True),
    Column("last_check_at", UtcDateTime, nullable=False),
    # What says that it changed before this has been looked at since; None before the first whole sweep.
    Column("watermark", UtcDateTime),
)

# A sweep looks at every row once. One of an entity may be going on; of those that are through only the last
# is kept. `run_id` is the run that works on it, or did last; `watermark` is as in `discrepancy_checks`, once
# it is through; `due_at` is when a rotating sweep is to be through.
verifier_sweeps: Final = Table(
    "verifier_sweeps",
    primary_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("entity_type", String(64), nullable=False),
    Column("run_id", uuid_text(), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("watermark", UtcDateTime, nullable=False),
    Column("estimated_rows", BigInteger, nullable=False),
    Column("due_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Index(
        "uq_verifier_sweeps_going_on",
        "entity_type",
        unique=True,
        postgresql_where=text("finished_at IS NULL"),
        sqlite_where=text("finished_at IS NULL"),
    ),
)

# The parts of a sweep: the keys above `after_key` up to and with `upto_key` (null is open-ended), and how far
# they have been looked at and settled. The counts are of what the cursor has passed.
verifier_parts: Final = Table(
    "verifier_parts",
    primary_metadata,
    Column("sweep_id", uuid_text(), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("after_key", json_document()),
    Column("upto_key", json_document()),
    Column("cursor_key", json_document()),
    Column("rows_primary", BigInteger, nullable=False),
    Column("rows_shadow", BigInteger, nullable=False),
    Column("rows_looked_at", BigInteger, nullable=False),
    Column("in_flight", BigInteger, nullable=False),
    Column("found_new", BigInteger, nullable=False),
    Column("persisting", BigInteger, nullable=False),
    Column("resolved", BigInteger, nullable=False),
    Column("scan_seconds", Float, nullable=False),
    Column("recheck_seconds", Float, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
)

job_runs: Final = Table(
    "job_runs",
    primary_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("job", String(64), nullable=False),
    Column("trigger", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("result", json_document()),
    CheckConstraint("trigger IN ('schedule', 'admin', 'cli')", name="trigger"),
    CheckConstraint("state IN ('running', 'succeeded', 'failed')", name="state"),
    Index(None, "job", "started_at"),
)

# What a process served under an experiment; `closed_at` is its last word, without which the rest is unknown.
experiment_processes: Final = Table(
    "experiment_processes",
    primary_metadata,
    Column("experiment_uid", String(128), primary_key=True),
    Column("process_id", uuid_text(), primary_key=True),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("counted_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
)

# An account that was asked for: the verifier's run it waits for, and in the end the answer.
experiment_accounts: Final = Table(
    "experiment_accounts",
    primary_metadata,
    Column("experiment_uid", String(128), primary_key=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("run_id", uuid_text(), nullable=False),
    Column("result", json_document()),
)

# A row with `deleted_at` is a tombstone: it holds nothing of the entity but its key and version, so that an
# older write that comes late cannot bring the entity back.
shadow_listings: Final = Table(
    "listings",
    shadow_metadata,
    Column("id", uuid_text(), primary_key=True),
    Column("title", Text),
    Column("price", ExactPrice),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("deleted_at", UtcDateTime),
    CheckConstraint(
        "deleted_at IS NOT NULL OR (title IS NOT NULL AND price IS NOT NULL AND created_at IS NOT NULL)",
        name="alive_is_whole",
    ),
    Index(None, "updated_at", "id"),
)
