"""One of the two databases: short read-only snapshots, limits, errors without secrets."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shadowfault_api.store.urls import READ_ONLY_OPTION
from shadowfault_api.verifier.errors import SchemaError, TooSlowError, UnreachableError, VerificationError
from shadowfault_api.verifier.pace import Budget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

# How many steps of SQLite's virtual machine pass between two looks at the clock.
_PROGRESS_STEPS: Final = 10_000
# PostgreSQL, appendix A: query_canceled (statement_timeout) and lock_not_available.
_TIMEOUT_STATES: Final = frozenset({"57014", "55P03", "SQLITE_INTERRUPT"})
# Class 22, data exception; the driver refuses a NUL in a text by itself.
_DATA_CLASS: Final = "22"
_REFUSED_BY_DRIVER: Final = (psycopg.DataError, UnicodeEncodeError)
# undefined_table, undefined_column, invalid_schema_name
_SCHEMA_STATES: Final = frozenset({"42P01", "42703", "3F000"})

# The text forms of values depend on all but the last three. Rows that a policy hides would look like a
# discrepancy, or be one that nobody sees: with it off, the server refuses instead. One core of a server is
# enough for one verifier, and its statements are over before compiling them has paid for itself (*measured*:
# 15 % slower with it).
_SETTINGS: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmloption": "content",
    "lc_monetary": "C",
    "row_security": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Side:
    """`name` is primary or shadow; `statement_seconds` limits a statement (on SQLite: one look).

    Who reads rows charges the `budget` with them.
    """

    name: str
    engine: Engine
    statement_seconds: float
    budget: Budget = field(default_factory=Budget, compare=False)

    @property
    def postgresql(self) -> bool:
        """Whether it is PostgreSQL; it is SQLite otherwise."""
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a read-only transaction in which everything is seen as of one instant.

        Raises:
            VerificationError: for every error of the database.
        """
        with self._connected(reading=True) as connection, self._read_only(connection), connection.begin():
            self._limit(connection)
            driver: Any = connection.connection.driver_connection
            if not self.postgresql and not driver.in_transaction:
                raise VerificationError(f"{self.described()}: make its engine with create_sync_engine")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes; committed at the end.

        Raises:
            VerificationError: for every error of the database.
        """
        with self._connected(reading=False) as connection, connection.begin():
            self._limit(connection)
            yield connection

    def _limit(self, connection: Connection) -> None:
        if self.postgresql:
            milliseconds = str(max(1, round(self.statement_seconds * 1000)))
            limits = {"statement_timeout": milliseconds, "lock_timeout": milliseconds}
            settings = ", ".join(
                f"set_config('{name}', '{value}', true)" for name, value in (limits | _SETTINGS).items()
            )
            connection.exec_driver_sql(f"SELECT {settings}")

    @contextmanager
    def _connected(self, *, reading: bool) -> Iterator[Connection]:
        options: dict[str, Any] = {READ_ONLY_OPTION: reading}
        if self.postgresql:
            level = "REPEATABLE READ" if reading else "READ COMMITTED"
            options = {"isolation_level": level, "postgresql_readonly": reading}
        try:
            connection = self.engine.connect()
        except SQLAlchemyError as error:
            raise UnreachableError(f"cannot reach {self.described()}: {self._reason(error)}") from None
        try:
            with connection:
                yield connection.execution_options(**options)
        except SQLAlchemyError as error:
            # Not the message: a database quotes the row it speaks of.
            raise self._translated(error) from None
        except UnicodeDecodeError:
            raise VerificationError(
                f"{self.described()} holds a text that is not UTF-8, which no service writes: mend or remove "
                "the row that has it, and verify again"
            ) from None

    @contextmanager
    def _read_only(self, connection: Connection) -> Iterator[None]:
        """Hold SQLite to what `postgresql_readonly` and `statement_timeout` are elsewhere."""
        if self.postgresql:
            yield
            return
        driver: Any = connection.connection.driver_connection
        deadline = time.monotonic() + self.statement_seconds
        driver.execute("PRAGMA query_only = ON")
        driver.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_STEPS)
        try:
            yield
        finally:
            driver.set_progress_handler(None, 0)
            driver.execute("PRAGMA query_only = OFF")

    def described(self) -> str:
        """Name the database for people: no user, no password, no parameters."""
        return f"the {self.name} database {safe_url(self.engine.url)}"

    def _reason(self, error: SQLAlchemyError) -> str:
        """Give the driver's words, of a connection that failed; these speak of hosts, not of rows."""
        original = error.orig if isinstance(error, DBAPIError) else error
        words = " ".join(str(original).split()) or type(original).__name__
        for secret in _secrets(self.engine.url):
            words = words.replace(secret, "***")
        return words

    def _translated(self, error: SQLAlchemyError) -> VerificationError:
        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        state = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
        if state in _TIMEOUT_STATES:
            return TooSlowError(
                f"{self.described()} took longer than {self.statement_seconds:g} s for a statement: "
                "raise --statement-timeout, or lower --chunk-size"
            )
        if state in _SCHEMA_STATES or "no such" in str(original):
            return SchemaError(
                f"{self.described()} lacks a table or a column of this version: "
                "run the migrations (`shadowfault api` runs them when it starts)"
            )
        if state == "42501":
            return SchemaError(
                f"the user of {self.described()} may not read or write the verifier's tables, or not all of "
                "their rows: grant it (`shadowfault db grant`), and BYPASSRLS where a policy hides rows"
            )
        if str(state).startswith(_DATA_CLASS) or isinstance(original, _REFUSED_BY_DRIVER):
            return VerificationError(
                f"{self.described()} cannot take a key that the other database holds ({state or 'no code'}): "
                "no listing has such a key; find it by its length or its characters, and remove it"
            )
        return UnreachableError(f"{self.described()} failed: {type(original).__name__}, {state or 'no code'}")


def safe_url(url: URL) -> str:
    """A database URL without user, password and parameters."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///{url.database}"
    port = f":{url.port}" if url.port else ""
    return f"{url.get_backend_name()}://{url.host or ''}{port}/{url.database or ''}"


def _secrets(url: URL) -> list[str]:
    parameters = [value for name, value in url.query.items() if "pass" in name and isinstance(value, str)]
    return [secret for secret in (url.password, *parameters) if secret]
