"""Bring a database to the newest schema, safely when several replicas start at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, NullPool, text

from shadowfault_api.store.locks import MIGRATION_LOCK_KEY
from shadowfault_api.store.schema import primary_metadata, shadow_metadata
from shadowfault_api.store.urls import create_sync_engine

_SCRIPTS: Final = Path(__file__).with_name("migrations")


class Database(StrEnum):
    """Which of the two databases: each has a schema and a history of its own."""

    PRIMARY = "primary"
    SHADOW = "shadow"

    @property
    def metadata(self) -> MetaData:
        """The tables the newest revision has."""
        return primary_metadata if self is Database.PRIMARY else shadow_metadata


def migrate(url: str | URL, which: Database | str, *, timeout_seconds: float = 30.0) -> None:
    """Upgrade the database at `url` to the newest revision; nothing happens when it is there already.

    One transaction under one lock (SQLite: BEGIN IMMEDIATE; PostgreSQL: a transaction-level advisory lock):
    whoever comes second waits and then finds the work done. Blocks: run it in a thread.

    Args:
        timeout_seconds: how long to wait for a connection, and for another process that migrates.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses.
        alembic.util.CommandError: the database is at a revision this version does not know.
    """
    engine = create_sync_engine(url, timeout_seconds=timeout_seconds, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = {int(timeout_seconds * 1000)}"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK_KEY})"))
            command.upgrade(_config(connection, Database(which)), "head")
    finally:
        engine.dispose()


def is_current(url: str | URL, which: Database | str, *, timeout_seconds: float = 5.0) -> bool:
    """Tell whether the database is at the newest revision this version knows. Reads only.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses.
    """
    engine = create_sync_engine(url, timeout_seconds=timeout_seconds, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            newest = ScriptDirectory.from_config(_config(connection, Database(which))).get_heads()
            return MigrationContext.configure(connection).get_current_heads() == tuple(newest)
    finally:
        engine.dispose()


def _config(connection: Connection, which: Database) -> Config:
    config = Config()
    # Alembic's options go through configparser, where % is special.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("version_locations", str(_SCRIPTS / which.value).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = which.metadata
    return config
