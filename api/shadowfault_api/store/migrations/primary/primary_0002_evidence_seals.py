"""Seals over evidence, and on PostgreSQL monthly partitions of its records.

Existing records are carried over, and so is who may read and insert them. Whoever else than the owner may
change or remove evidence, by a grant or by default privileges, may not any more.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from shadowfault_api.store.types import UtcDateTime, row_id, uuid_text

revision = "primary_0002"
# Numbers are handed out ahead of time; the chain is in the order in which they were merged.
down_revision = "primary_0003"
branch_labels = None
depends_on = None

_SEALING: Final = ("evidence_seals", "evidence_leaves")
_COLUMNS: Final = (
    "id, occurred_at, control_id, category, event_type, event_outcome, entity_type, entity_id, request_id, "
    "details, content_hash"
)

_PARTITIONED: Final = (
    "ALTER TABLE evidence_records RENAME TO evidence_records_before",
    "ALTER TABLE evidence_records_before RENAME CONSTRAINT pk_evidence_records TO pk_evidence_records_before",
    "DROP INDEX ix_evidence_records_event_type_occurred_at, ix_evidence_records_entity_type_entity_id",
    """
    CREATE TABLE evidence_records (
      LIKE evidence_records_before,
      txid bigint NOT NULL DEFAULT txid_current(),
      CONSTRAINT pk_evidence_records PRIMARY KEY (id, occurred_at)
    ) PARTITION BY RANGE (occurred_at)
    """,
    "CREATE INDEX ix_evidence_records_event_type_occurred_at ON evidence_records (event_type, occurred_at)",
    "CREATE INDEX ix_evidence_records_entity_type_entity_id ON evidence_records (entity_type, entity_id)",
    # Who seals asks for the newest transactions, five times a second.
    "CREATE INDEX ix_evidence_records_txid ON evidence_records (txid)",
    """
    CREATE TRIGGER evidence_records_immutable BEFORE UPDATE OR DELETE ON evidence_records
    FOR EACH ROW EXECUTE FUNCTION evidence_records_refuse()
    """,
    """
    CREATE TRIGGER evidence_records_no_truncate BEFORE TRUNCATE ON evidence_records
    FOR EACH STATEMENT EXECUTE FUNCTION evidence_records_refuse()
    """,
    # No insert ever fails for want of a month.
    "CREATE TABLE evidence_records_default PARTITION OF evidence_records DEFAULT",
    """
    CREATE TRIGGER evidence_records_no_truncate BEFORE TRUNCATE ON evidence_records_default
    FOR EACH STATEMENT EXECUTE FUNCTION evidence_records_refuse()
    """,
)

# ATTACH lets inserts into other months go on, CREATE ... PARTITION OF would not. TRUNCATE triggers are not
# inherited. A month that has rows in the default partition stays there.
_PREPARE_ONE: Final = """
CREATE FUNCTION evidence_prepare_month(month date) RETURNS boolean LANGUAGE plpgsql
SET search_path = {schema}, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  first date := date_trunc('month', month);
  name text := 'evidence_records_' || to_char(first, 'YYYY_MM');
BEGIN
  IF to_regclass(name) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE evidence_records INCLUDING DEFAULTS)', name);
  EXECUTE format(
    'CREATE TRIGGER evidence_records_no_truncate BEFORE TRUNCATE ON %I '
    'FOR EACH STATEMENT EXECUTE FUNCTION evidence_records_refuse()', name);
  PERFORM evidence_restrict(name::regclass);
  EXECUTE format(
    'ALTER TABLE evidence_records ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
    name, first::text || ' 00:00:00+00', (first + interval '1 month')::date::text || ' 00:00:00+00');
  RETURN true;
EXCEPTION WHEN check_violation THEN
  RETURN false;
END $$
"""

# Takes from everyone but the owner what nobody needs on a table of evidence; a partition is read and written
# through its parent only.
_RESTRICT: Final = """
CREATE FUNCTION evidence_restrict(target regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  item record;
  taken text := 'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER';
BEGIN
  IF (SELECT relispartition OR relname <> ALL ('{evidence_records,evidence_seals,evidence_leaves}')
      FROM pg_class WHERE oid = target) THEN
    taken := 'ALL';
  END IF;
  FOR item IN
    SELECT DISTINCT acl.grantee FROM pg_class, aclexplode(relacl) AS acl
    WHERE pg_class.oid = target AND acl.grantee <> relowner
  LOOP
    EXECUTE format('REVOKE %s ON %s FROM %s', taken, target, evidence_grantee(item.grantee));
  END LOOP;
END $$
"""

_GRANTEE: Final = """
CREATE FUNCTION evidence_grantee(role oid) RETURNS text LANGUAGE sql AS $$
  SELECT CASE WHEN role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END
$$
"""

# Who could read or insert records still can; who inserts may seal, and have months prepared.
_CARRY_GRANTS: Final = """
DO $$
DECLARE
  item record;
BEGIN
  FOR item IN
    SELECT evidence_grantee(acl.grantee) AS grantee, acl.privilege_type AS privilege
    FROM pg_class, aclexplode(relacl) AS acl
    WHERE pg_class.oid = 'evidence_records_before'::regclass AND acl.grantee <> relowner
      AND acl.privilege_type IN ('SELECT', 'INSERT')
  LOOP
    EXECUTE format('GRANT %s ON evidence_records, evidence_seals, evidence_leaves TO %s',
                   item.privilege, item.grantee);
    IF item.privilege = 'INSERT' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION evidence_prepare_months() TO %s', item.grantee);
    END IF;
  END LOOP;
END $$
"""

# With the rights of its owner: the service may insert evidence, and must not own it.
_PREPARE: Final = """
CREATE FUNCTION evidence_prepare_months() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {schema}, pg_temp AS $$
DECLARE
  made integer := 0;
BEGIN
  FOR ahead IN 0 .. 3 LOOP
    IF evidence_prepare_month(((now() AT TIME ZONE 'UTC') + make_interval(months => ahead))::date) THEN
      made := made + 1;
    END IF;
  END LOOP;
  RETURN made;
END $$
"""

_CARRY_OVER: Final = (
    """
    SELECT evidence_prepare_month(month::date)
    FROM (SELECT DISTINCT date_trunc('month', occurred_at AT TIME ZONE 'UTC') AS month
          FROM evidence_records_before) AS months
    """,
    "SELECT evidence_prepare_months()",
    # Below zero: no transaction of this server comes before them.
    f"""
    INSERT INTO evidence_records ({_COLUMNS}, txid)
    SELECT {_COLUMNS}, row_number() OVER (ORDER BY occurred_at, id) - count(*) OVER () - 1
    FROM evidence_records_before
    """,  # noqa: S608 - constants
    "DROP TABLE evidence_records_before",
)


def upgrade() -> None:
    _sealing()
    if op.get_bind().dialect.name == "postgresql":
        _partition()
        _guard_postgresql()
    else:
        _guard_sqlite()


def _sealing() -> None:
    op.create_table(
        "evidence_seals",
        sa.Column("number", row_id(), nullable=False, autoincrement=False),
        sa.Column("prev", sa.String(64), nullable=False),
        sa.Column("root", sa.String(64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("sealed_at", UtcDateTime(), nullable=False),
        sa.Column("first_occurred_at", UtcDateTime(), nullable=False),
        sa.Column("last_occurred_at", UtcDateTime(), nullable=False),
        sa.Column("key_id", sa.String(64)),
        sa.Column("head", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128)),
        sa.Column("sealed_below", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_evidence_seals"),
        sa.UniqueConstraint("prev", name="uq_evidence_seals_prev"),
    )
    op.create_table(
        "evidence_leaves",
        sa.Column("seal_number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("leaf_index", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("record_id", uuid_text(), nullable=False),
        sa.Column("occurred_at", UtcDateTime(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("seal_number", "leaf_index", name="pk_evidence_leaves"),
        sa.UniqueConstraint("record_id", "occurred_at", name="uq_evidence_leaves_record_id_occurred_at"),
    )


def _partition() -> None:
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    for statement in _PARTITIONED:
        op.execute(statement)
    for function in (_GRANTEE, _RESTRICT, _PREPARE_ONE, _PREPARE):
        op.execute(function.replace("{schema}", schema))
    op.execute(
        "REVOKE EXECUTE ON FUNCTION evidence_prepare_month(date), evidence_prepare_months() FROM PUBLIC"
    )
    op.execute(_CARRY_GRANTS)
    for statement in _CARRY_OVER:
        op.execute(statement)
    for table in ("evidence_records", "evidence_records_default", *_SEALING):
        op.execute(f"SELECT evidence_restrict('{table}')")


def _guard_postgresql() -> None:
    op.execute(
        """
        CREATE FUNCTION evidence_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION '% is append-only: a row is never changed or removed', TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table in _SEALING:
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION evidence_refuse()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION evidence_refuse()"
        )


def _guard_sqlite() -> None:
    same = {
        "evidence_seals": "number = NEW.number OR prev = NEW.prev",
        "evidence_leaves": "(seal_number = NEW.seal_number AND leaf_index = NEW.leaf_index) "
        "OR (record_id = NEW.record_id AND occurred_at = NEW.occurred_at)",
    }
    for table in _SEALING:
        refusal = f"SELECT RAISE(ABORT, '{table} is append-only: a row is never changed or removed');"
        op.execute(f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN {refusal} END")
        op.execute(f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {refusal} END")
        # INSERT OR REPLACE deletes the old row, and fires no DELETE trigger unless recursive_triggers is on.
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "  # noqa: S608 - constants
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {same[table]}) BEGIN {refusal} END"
        )


def downgrade() -> None:
    raise NotImplementedError("evidence is never removed: restore the database from its backup instead")
