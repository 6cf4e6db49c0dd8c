"""From an error of a database to the `failure_type` of metrics and evidence; its message stays behind."""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import exc

from shadowfault_api.store.outbox import SUPERSEDED, Failure

if TYPE_CHECKING:
    from shadowfault import Fault


class FailureType(StrEnum):
    """Why a shadow write was not made.

    `circuit_open`: the breaker was open for longer than a write is kept waiting. `superseded`: a newer
    write of the same key came first.
    """

    INJECTED = "injected"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    CONSTRAINT = "constraint"
    CIRCUIT_OPEN = "circuit_open"
    SUPERSEDED = SUPERSEDED
    UNKNOWN = "unknown"


# What one of many may bring about; of the others, the database as a whole is the reason.
OF_ONE: Final = frozenset({FailureType.CONSTRAINT, FailureType.UNKNOWN})
# PostgreSQL, appendix A: 57014 query_canceled (statement_timeout), 55P03 lock_not_available.
_TIMEOUT_STATES: Final = frozenset({"57014", "55P03"})
# A row is refused by a trigger (P0001), or is larger than an index takes (54000): others are not.
_REFUSED_STATES: Final = frozenset({"P0001", "54000"})
# 25006 read_only_sql_transaction: a replica after a failover.
_UNAVAILABLE_STATES: Final = frozenset({"25006"})
# 42501 insufficient_privilege, 3F000 invalid_schema_name, 42P01 undefined_table, 42703 undefined_column: a
# shadow that is not set up. Or a row of it is refused so, by row-level security or a trigger.
_NOT_SET_UP_STATES: Final = frozenset({"42501", "3F000", "42P01", "42703"})
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT})


def injected(fault: Fault) -> Failure:
    """The failure an injected fault is."""
    return Failure(FailureType.INJECTED, fault.experiment, fault.experiment_uid)


def classify(error: BaseException) -> Failure:
    """The failure of a shadow write that a real error of the shadow is."""
    original = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    state = getattr(original, "sqlstate", None)
    return Failure(
        FailureType.UNAVAILABLE if state in _NOT_SET_UP_STATES else failure_type_of(error),
        error_class=type(original).__name__,
        sql_state=state if isinstance(state, str) else None,
    )


def may_be_of_a_row(failure: Failure) -> bool:
    """Whether one row of a batch may be the reason that the shadow refused it; of the others, no row is."""
    return failure.failure_type in OF_ONE or failure.sql_state in _NOT_SET_UP_STATES


def failure_type_of(error: BaseException) -> FailureType:
    """Sort an error by what can be done about it."""
    if isinstance(error, TimeoutError | exc.TimeoutError) or _is_database_timeout(error):
        return FailureType.TIMEOUT
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, exc.DBAPIError) else None
    if state in _UNAVAILABLE_STATES:
        return FailureType.UNAVAILABLE
    if isinstance(error, exc.IntegrityError | exc.DataError) or state in _REFUSED_STATES:
        return FailureType.CONSTRAINT
    if isinstance(error, exc.OperationalError | exc.InterfaceError | OSError):
        return FailureType.UNAVAILABLE
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return FailureType.UNAVAILABLE
    return FailureType.UNKNOWN


def _is_database_timeout(error: BaseException) -> bool:
    if not isinstance(error, exc.DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _TIMEOUT_STATES:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    # The low byte is the primary code: https://sqlite.org/rescode.html
    return isinstance(code, int) and code & 0xFF in _SQLITE_BUSY
