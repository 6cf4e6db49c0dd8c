"""Alembic's environment. It is only ever given a connection that already holds the migration lock."""

from __future__ import annotations

from alembic import context

config = context.config

context.configure(
    connection=config.attributes["connection"],
    target_metadata=config.attributes["metadata"],
    # Both databases take DDL inside a transaction: a migration that fails leaves nothing behind.
    transactional_ddl=True,
    render_as_batch=config.attributes["connection"].dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
