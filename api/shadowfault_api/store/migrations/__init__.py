"""Alembic revisions: `primary/` and `shadow/` are two histories, one for each database."""
