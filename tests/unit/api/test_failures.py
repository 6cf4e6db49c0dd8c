"""From an error to its failure type."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy import exc

from shadowfault import Fault
from shadowfault_api.shadow.failures import (
    FailureType,
    classify,
    failure_type_of,
    injected,
    may_be_of_a_row,
)


def _sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("about a row of Jane Doe")
    error.sqlite_errorcode = code
    return error


def _wrapped(kind: type[exc.DBAPIError], original: Exception) -> exc.DBAPIError:
    return kind("INSERT ...", {"title": "Jane Doe"}, original)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), FailureType.TIMEOUT),
        (exc.TimeoutError("the pool is empty"), FailureType.TIMEOUT),
        (_wrapped(exc.OperationalError, psycopg.errors.QueryCanceled()), FailureType.TIMEOUT),
        (_wrapped(exc.OperationalError, psycopg.errors.LockNotAvailable()), FailureType.TIMEOUT),
        (_wrapped(exc.OperationalError, _sqlite(sqlite3.SQLITE_BUSY)), FailureType.TIMEOUT),
        (_wrapped(exc.OperationalError, _sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT)), FailureType.TIMEOUT),
        (_wrapped(exc.OperationalError, _sqlite(sqlite3.SQLITE_FULL)), FailureType.UNAVAILABLE),
        (_wrapped(exc.OperationalError, psycopg.OperationalError()), FailureType.UNAVAILABLE),
        (_wrapped(exc.OperationalError, psycopg.errors.DiskFull()), FailureType.UNAVAILABLE),
        (_wrapped(exc.InterfaceError, psycopg.InterfaceError()), FailureType.UNAVAILABLE),
        (ConnectionRefusedError(), FailureType.UNAVAILABLE),
        (_wrapped(exc.IntegrityError, psycopg.errors.CheckViolation()), FailureType.CONSTRAINT),
        (_wrapped(exc.IntegrityError, sqlite3.IntegrityError()), FailureType.CONSTRAINT),
        (_wrapped(exc.DataError, psycopg.errors.StringDataRightTruncation()), FailureType.CONSTRAINT),
        (_wrapped(exc.InternalError, psycopg.errors.RaiseException()), FailureType.CONSTRAINT),
        (_wrapped(exc.OperationalError, psycopg.errors.ProgramLimitExceeded()), FailureType.CONSTRAINT),
        (_wrapped(exc.InternalError, psycopg.errors.ReadOnlySqlTransaction()), FailureType.UNAVAILABLE),
        (_wrapped(exc.ProgrammingError, psycopg.errors.UndefinedTable()), FailureType.UNKNOWN),
        (_wrapped(exc.ProgrammingError, psycopg.errors.SyntaxError()), FailureType.UNKNOWN),
        (ValueError("odd"), FailureType.UNKNOWN),
    ],
    ids=lambda value: getattr(value, "value", None) or type(getattr(value, "orig", value)).__name__,
)
def test_an_error_has_a_failure_type(error: Exception, expected: FailureType) -> None:
    assert failure_type_of(error) is expected


def test_a_failure_keeps_class_and_state_and_never_the_message() -> None:
    failure = classify(_wrapped(exc.IntegrityError, psycopg.errors.CheckViolation("row of Jane Doe")))
    assert (failure.error_class, failure.sql_state) == ("CheckViolation", "23514")
    assert "Jane" not in repr(failure)
    assert classify(ValueError("Jane Doe")).error_class == "ValueError"


def test_an_injected_fault_carries_its_experiment() -> None:
    failure = injected(Fault("Listing", "create", "req-1", 0, "staging/x", "uid-1"))
    assert (failure.failure_type, failure.experiment, failure.experiment_uid) == (
        "injected",
        "staging/x",
        "uid-1",
    )


@pytest.mark.parametrize(
    ("error", "expected", "of_a_row"),
    [
        (psycopg.errors.UndefinedTable(), FailureType.UNAVAILABLE, True),
        (psycopg.errors.InsufficientPrivilege(), FailureType.UNAVAILABLE, True),  # or row-level security
        (psycopg.errors.DiskFull(), FailureType.UNAVAILABLE, False),
        (psycopg.errors.CheckViolation(), FailureType.CONSTRAINT, True),
        (psycopg.errors.SyntaxError(), FailureType.UNKNOWN, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_the_shadow_refuses_may_be_of_one_row(
    error: psycopg.Error, expected: FailureType, of_a_row: bool
) -> None:
    kinds = (exc.IntegrityError, exc.OperationalError, exc.ProgrammingError)
    kind = next(one for one in kinds if isinstance(error, getattr(psycopg, one.__name__)))
    failure = classify(_wrapped(kind, error))
    assert (failure.failure_type, may_be_of_a_row(failure)) == (expected, of_a_row)
