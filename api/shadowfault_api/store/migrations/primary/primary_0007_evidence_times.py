"""Evidence at no time that can be told is refused: PostgreSQL takes 'infinity', which nothing can seal."""

from __future__ import annotations

from alembic import op

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
        FOR EACH ROW WHEN (NOT isfinite(NEW.occurred_at)) EXECUTE FUNCTION evidence_records_refuse_time()
        """
    )
