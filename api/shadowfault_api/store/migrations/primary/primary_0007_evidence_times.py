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
          item record;
        BEGIN
          FOR item IN
            SELECT DISTINCT evidence_grantee(acl.grantee) AS grantee
            FROM pg_class, aclexplode(relacl) AS acl
            WHERE pg_class.oid = 'evidence_records'::regclass
              AND acl.privilege_type = 'INSERT' AND acl.grantee <> relowner
          LOOP
            EXECUTE format('REVOKE INSERT ON evidence_records FROM %s', item.grantee);
            EXECUTE format('GRANT INSERT ({_COLUMNS}) ON evidence_records TO %s', item.grantee);
          END LOOP;
        END $$
        """  # noqa: S608 - the columns above
    )
