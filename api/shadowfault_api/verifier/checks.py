"""What must hold before anything is compared: files and tables are there, and the server is not a replica."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, func, select, text

from shadowfault_api.store.schema import (
    discrepancies,
    discrepancy_checks,
    evidence_records,
    job_runs,
    listings,
    outbox,
    shadow_listings,
    verifier_parts,
    verifier_sweeps,
)
from shadowfault_api.verifier.errors import SchemaError, UnreachableError

if TYPE_CHECKING:
    from sqlalchemy import Table

    from shadowfault_api.verifier.side import Side

_PRIMARY_TABLES: Final = (
    listings,
    outbox,
    evidence_records,
    discrepancies,
    discrepancy_checks,
    job_runs,
    verifier_sweeps,
    verifier_parts,
)


def check_databases(primary: Side, shadow: Side) -> None:
    """Ask both databases once.

    Raises:
        UnreachableError: one does not answer, or is a replica.
        SchemaError: one has not the tables of this version.
    """
    _check(primary, _PRIMARY_TABLES)
    _check(shadow, (shadow_listings,))


def _check(side: Side, tables: tuple[Table, ...]) -> None:
    database = side.engine.url.database
    # SQLite would create the file, and an empty database looks like lost data.
    if not side.postgresql and database and not Path(database).exists():
        raise UnreachableError(f"cannot reach {side.described()}: there is no such file")
    with side.snapshot() as connection:
        if side.postgresql and connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
            raise UnreachableError(
                f"{side.described()} is a replica in recovery: what it has not replayed yet would look like "
                "a discrepancy; give the URL of its primary server"
            )
        if not side.postgresql:
            encoding = connection.execute(text("PRAGMA encoding")).scalar_one()
            if encoding != "UTF-8":
                raise SchemaError(
                    f"{side.described()} is in {encoding}, which sorts keys in another order than the other "
                    "database does: copy it into one in UTF-8, which is SQLite's default"
                )
        connection.execute(_nothing_of(*tables))


@cache
def _nothing_of(*tables: Table) -> Select[Any]:
    """Name every column of some tables in one statement, and read none of their rows."""
    counts = (
        select(func.count()).select_from(select(table).limit(0).subquery()).scalar_subquery()
        for table in tables
    )
    return select(*counts)
