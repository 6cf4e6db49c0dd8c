"""What a writer of evidence may say of it: its columns only, and a time that can be sealed.

PostgreSQL takes 'infinity' and years beyond 9999, which nothing that seals can read. `txid`, by which the
sealer knows what it has been through, is PostgreSQL's to give.
"""

from __future__ import annotations

from typing import Final

from alembic import op

_COLUMNS: Final = (
    "id, occurred_at, control_id, category, event_type, event_outcome, entity_type, entity_id, request_id, "
    "details, content_hash"
)

revision = "primary_0007"
down_revision = "primary_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.execute(
        """
        CREATE FUNCTION evidence_records_refuse_time() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
          RAISE EXCEPTION 'evidence needs the time it happened at' USING ERRCODE = 'check_violation';
        END $$
        """
    )
    # A trigger of the parent is one of each month too, those to come included; a constraint would not be.
    op.execute(
        """
        CREATE TRIGGER evidence_records_finite BEFORE INSERT ON evidence_records
        FOR EACH ROW WHEN (NEW.occurred_at NOT BETWEEN '2000-01-01 00:00:00+00' AND '9000-01-01 00:00:00+00')
        EXECUTE FUNCTION evidence_records_refuse_time()
        """
    )
    op.execute(
        f"""
        DO $$
        DECLARE
          grantees text[];
          options text[];
        BEGIN
          SELECT array_agg(grantee), array_agg(option) INTO grantees, options
          FROM (
            SELECT evidence_grantee(acl.grantee) AS grantee,
              CASE WHEN bool_or(acl.is_grantable) THEN 'WITH GRANT OPTION' ELSE '' END AS option
            FROM (
              SELECT relacl FROM pg_class WHERE oid = 'evidence_records'::regclass
              UNION ALL
              SELECT attacl FROM pg_attribute WHERE attrelid = 'evidence_records'::regclass
            ) AS granted (acls), aclexplode(acls) AS acl, pg_class
            WHERE pg_class.oid = 'evidence_records'::regclass
              AND acl.privilege_type = 'INSERT' AND acl.grantee <> relowner
            GROUP BY acl.grantee
          ) AS writers;
          -- On the table it takes what is on its columns too, and what a grantee has given to others.
          FOR i IN 1 .. coalesce(array_length(grantees, 1), 0) LOOP
            EXECUTE format('REVOKE INSERT ON evidence_records FROM %s CASCADE', grantees[i]);
          END LOOP;
          FOR i IN 1 .. coalesce(array_length(grantees, 1), 0) LOOP
            EXECUTE format(
              'GRANT INSERT ({_COLUMNS}) ON evidence_records TO %s %s', grantees[i], options[i]);
          END LOOP;
        END $$
        """  # noqa: S608 - the columns above
    )
