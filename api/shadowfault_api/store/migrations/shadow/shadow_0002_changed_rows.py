"""The index by which the verifier's incremental passes find what changed.

On a big table build it before, beside the writers; then nothing is done here:

    CREATE INDEX CONCURRENTLY ix_listings_updated_at_id ON listings (updated_at, id)
"""

from __future__ import annotations

from alembic import op

revision = "shadow_0002"
down_revision = "shadow_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_listings_updated_at_id", "listings", ["updated_at", "id"], if_not_exists=True)


def downgrade() -> None:
    op.drop_index("ix_listings_updated_at_id", "listings")
