"""First schema of the shadow database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from shadowfault_api.store.types import ExactPrice, UtcDateTime, uuid_text

revision = "shadow_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "listings",
        sa.Column("id", uuid_text(), nullable=False),
        sa.Column("title", sa.Text()),
        sa.Column("price", ExactPrice()),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime()),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.Column("deleted_at", UtcDateTime()),
        sa.PrimaryKeyConstraint("id", name="pk_listings"),
        sa.CheckConstraint(
            "deleted_at IS NOT NULL OR (title IS NOT NULL AND price IS NOT NULL AND created_at IS NOT NULL)",
            name=op.f("ck_listings_alive_is_whole"),
        ),
    )


def downgrade() -> None:
    op.drop_table("listings")
