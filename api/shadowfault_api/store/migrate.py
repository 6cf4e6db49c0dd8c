"""Bring a database to the newest schema, safely when several replicas start at once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, MetaData, NullPool, text

from shadowfault_api.store.locks import MIGRATION_LOCK_KEY
from shadowfault_api.store.schema import primary_metadata, shadow_metadata
from shadowfault_api.store.urls import create_sync_engine

# Alembic keeps what it is at in modules: two databases of one process must not be mixed up.
_ONE_AT_A_TIME: Final = Lock()
_SCRIPTS: Final = Path(__file__).with_name("migrations")


class Database(StrEnum):
    """Which of the two databases: each has a schema and a history of its own."""

    PRIMARY = "primary"
    SHADOW = "shadow"

    @property
    def metadata(self) -> MetaData:
        """The tables the newest revision has."""
        return primary_metadata if self is Database.PRIMARY else shadow_metadata


class NewerDatabaseError(Exception):
    """A database was migrated by a newer version; the message says what to do."""


def migrate(url: str | URL, which: Database | str, *, timeout_seconds: float = 30.0) -> None:
    """Upgrade the database at `url` to the newest revision; nothing happens when it is there already.

    One transaction under one lock (SQLite: BEGIN IMMEDIATE; PostgreSQL: a transaction-level advisory lock):
    whoever comes second waits and then finds the work done. Blocks: run it in a thread.

    Args:
        timeout_seconds: how long to wait for a connection, and for another process that migrates.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses.
        NewerDatabaseError: it is at a revision this version does not know.
    """
    engine = create_sync_engine(url, timeout_seconds=timeout_seconds, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = {int(timeout_seconds * 1000)}"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK_KEY})"))
            _current(connection, Database(which))
            with _ONE_AT_A_TIME:
                command.upgrade(_config(connection, Database(which)), "head")
    finally:
        engine.dispose()


def is_current(url: str | URL, which: Database | str, *, timeout_seconds: float = 5.0) -> bool:
    """Tell whether the database is at the newest revision this version knows. Reads only.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or refuses.
        NewerDatabaseError: it is at a revision this version does not know.
    """
    engine = create_sync_engine(url, timeout_seconds=timeout_seconds, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            current, newest = _current(connection, Database(which))
            return current == newest
    finally:
        engine.dispose()


def _current(connection: Connection, which: Database) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the revisions a database is at, and the newest ones this version knows."""
    scripts = ScriptDirectory.from_config(_config(connection, which))
    current = MigrationContext.configure(connection).get_current_heads()
    unknown = set(current) - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise NewerDatabaseError(
            f"the {which.value} database is newer than this version, which does not know its revision "
            f"{', '.join(sorted(unknown))}: run the version that migrated it, or restore a backup from before"
        )
    return current, tuple(scripts.get_heads())


def _config(connection: Connection, which: Database) -> Config:
    config = Config()
    # Alembic's options go through configparser, where % is special.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.set_main_option("version_locations", str(_SCRIPTS / which.value).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["metadata"] = which.metadata
    return config
