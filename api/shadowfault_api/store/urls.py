"""Database URLs and the engines made from them, synchronous and asynchronous, on SQLite and PostgreSQL.

On SQLite a transaction begins as BEGIN IMMEDIATE, unless the engine came from `read_only`: a deferred
transaction that reads and then writes cannot wait for another writer, it fails at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

READ_ONLY_OPTION: Final = "shadowfault_read_only"
_DRIVERS: Final = {
    ("sqlite", False): "sqlite+pysqlite",
    ("sqlite", True): "sqlite+aiosqlite",
    ("postgresql", False): "postgresql+psycopg",
    ("postgresql", True): "postgresql+psycopg",
}
_WAL_ATTEMPTS: Final = 50
# An error of the database must not carry the values of a row into a log.
_QUIET: Final[dict[str, Any]] = {"hide_parameters": True}


class DatabaseUrlError(ValueError):
    """Not the URL of a database this service runs on. The message never quotes it: it may hold a password."""


def database_url(url: str | URL, *, asynchronous: bool = False) -> URL:
    """Return `url` with the driver this package uses.

    `sqlite:///relative.db`, `sqlite:////absolute.db`, `postgresql://user:password@host/name`, `postgres://...`
    and the same with a driver named are accepted.

    Raises:
        DatabaseUrlError: unreadable, another database, or SQLite without a file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise DatabaseUrlError(
            "not a database URL: use sqlite:///file.db or postgresql://user@host/name"
        ) from error
    backend = parsed.drivername.partition("+")[0]
    backend = "postgresql" if backend == "postgres" else backend
    driver = _DRIVERS.get((backend, asynchronous))
    if driver is None:
        raise DatabaseUrlError(f"{backend!r} is not supported: use sqlite:///file.db or postgresql://...")
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise DatabaseUrlError("SQLite needs a file, which several processes share: use sqlite:///file.db")
    return parsed.set(drivername=driver)


def create_sync_engine(url: str | URL, *, timeout_seconds: float = 5.0, **options: Any) -> Engine:  # noqa: ANN401 - passed on to SQLAlchemy
    """Build an engine for a thread: the verifier, migrations, the command line.

    Args:
        timeout_seconds: how long to wait to connect (PostgreSQL) or for another writer (SQLite).
    """
    parsed = database_url(url)
    engine = create_engine(parsed, connect_args=_connect_args(parsed, timeout_seconds), **_QUIET | options)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, timeout_seconds)
    return engine


def create_asynchronous_engine(
    url: str | URL,
    *,
    timeout_seconds: float = 5.0,
    statement_timeout_seconds: float | None = None,
    lock_timeout_seconds: float | None = None,
    **options: Any,  # noqa: ANN401 - passed on to SQLAlchemy
) -> AsyncEngine:
    """Build an engine for the event loop.

    Args:
        timeout_seconds: how long to wait to connect (PostgreSQL) or for another writer (SQLite).
        statement_timeout_seconds: PostgreSQL's own limit on a statement, which ends it on the server too. A
            shorter one, of the role or in the URL, stays as it is.
        lock_timeout_seconds: the same for its wait for a lock; as long as the statement without it.
    """
    parsed = database_url(url, asynchronous=True)
    engine = create_async_engine(
        parsed, connect_args=_connect_args(parsed, timeout_seconds), **_QUIET | options
    )
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine.sync_engine, timeout_seconds)
    elif statement_timeout_seconds is not None:
        lock_timeout_seconds = lock_timeout_seconds or statement_timeout_seconds
        limits = {"statement_timeout": statement_timeout_seconds, "lock_timeout": lock_timeout_seconds}
        _limit_statements(engine.sync_engine, limits)
    return engine


def read_only(engine: AsyncEngine) -> AsyncEngine:
    """Return a view of `engine`, on the same pool, for single reads: it never takes the writer's lock.

    On PostgreSQL it runs in autocommit, which saves two round trips for each statement.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{READ_ONLY_OPTION: True})
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _connect_args(url: URL, timeout_seconds: float) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the driver begins nothing by itself; the listener below does.
        return {"isolation_level": None, "timeout": timeout_seconds}
    # A dead peer ends a connection within seconds, also where no FIN or RST ever comes.
    return {
        "connect_timeout": max(1, round(timeout_seconds)),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": max(1000, round(timeout_seconds * 1000)),
    }


# In milliseconds, as `setting` is for these two.
_LIMIT: Final = """
    SELECT set_config(name, milliseconds::text, false)
    FROM (VALUES ('statement_timeout', %(statement_timeout)s), ('lock_timeout', %(lock_timeout)s))
        AS wanted (name, milliseconds)
    JOIN pg_settings USING (name)
    WHERE setting::bigint = 0 OR setting::bigint > milliseconds
"""


def _limit_statements(engine: Engine, seconds: Mapping[str, float]) -> None:
    """Set the limits once a connection is made.

    As `options` of the connection they would take the place of those in the URL, and PgBouncer refuses them.
    """
    milliseconds = {name: max(1, round(limit * 1000)) for name, limit in seconds.items()}

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: DBAPIConnection, _record: object) -> None:
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute(_LIMIT, milliseconds)
        finally:
            cursor.close()
        dbapi_connection.commit()


def _prepare_sqlite(engine: Engine, timeout_seconds: float) -> None:
    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: DBAPIConnection, _record: object) -> None:
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute(f"PRAGMA busy_timeout = {int(timeout_seconds * 1000)}")
            cursor.execute("PRAGMA foreign_keys = ON")
            # Without it, INSERT OR REPLACE deletes a row and no DELETE trigger sees it.
            cursor.execute("PRAGMA recursive_triggers = ON")
            _enter_wal(cursor)
        finally:
            cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(READ_ONLY_OPTION, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _enter_wal(cursor: DBAPICursor) -> None:
    """Switch the file to WAL. Its first users may collide over that, and SQLite does not wait there."""
    for attempt in range(_WAL_ATTEMPTS):
        cursor.execute("PRAGMA journal_mode")
        if cursor.fetchone() == ("wal",):
            return
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.fetchone()
        except Exception as error:
            if "locked" not in str(error) or attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(0.02)
