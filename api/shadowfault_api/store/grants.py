"""Who may do what on PostgreSQL: the statements that give a role its rights and take what it must not have.

The tables belong to the role that migrates. A role of these may neither change nor remove evidence: the
triggers refuse it to everyone, and for these it is refused before any trigger is asked.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy import Table, text

from shadowfault_api.store.migrate import Database
from shadowfault_api.store.schema import evidence_leaves, evidence_records, evidence_seals

if TYPE_CHECKING:
    from sqlalchemy import Connection

_EVIDENCE: Final = (evidence_records, evidence_seals, evidence_leaves)
_SEALING: Final = (evidence_seals, evidence_leaves)
_PREPARE: Final = "evidence_prepare_months()"


class Duty(StrEnum):
    """What a role is for."""

    SERVICE = "service"
    SERVICE_WITHOUT_SEALER = "service-without-sealer"
    SEALER = "sealer"
    AUDITOR = "auditor"


class GrantError(Exception):
    """Nothing was granted; the message says why."""


def grants(which: Database, duty: Duty, role: str, schema: str) -> list[str]:
    """List the statements, in order; running them again changes nothing.

    The sealer and the auditor have no business in the shadow database: nothing is listed there.
    """
    if which is Database.SHADOW and duty in {Duty.SEALER, Duty.AUDITOR}:
        return []
    name = _quoted(role)
    serves = duty in {Duty.SERVICE, Duty.SERVICE_WITHOUT_SEALER}
    statements = [f"GRANT USAGE ON SCHEMA {_quoted(schema)} TO {name}"]

    def grant(rights: str, *objects: str) -> None:
        statements.append(f"GRANT {rights} ON {', '.join(objects)} TO {name}")

    if serves:
        grant("SELECT", f"{_quoted(schema)}.alembic_version")
        others = [table for table in which.metadata.sorted_tables if table not in _EVIDENCE]
        grant("SELECT, INSERT, UPDATE, DELETE", *(_named(table, schema) for table in others))
        sequences = [sequence for table in others for sequence in _sequences(table, schema)]
        if sequences:
            grant("USAGE", f"SEQUENCE {', '.join(sequences)}")
    if which is Database.PRIMARY:
        evidence = [_named(table, schema) for table in _EVIDENCE]
        prepare = f"FUNCTION {_quoted(schema)}.{_PREPARE}"
        # First away with all, also with what an ALTER DEFAULT PRIVILEGES gave.
        statements.append(f"REVOKE ALL ON {', '.join(evidence)} FROM {name}")
        statements.append(f"REVOKE ALL ON {prepare} FROM {name}")
        grant("SELECT", *evidence)
        if serves:
            # Not `txid`, by which the sealer knows what it has been through.
            columns = ", ".join(_quoted(column.name) for column in evidence_records.columns)
            grant(f"INSERT ({columns})", _named(evidence_records, schema))
        if duty in {Duty.SERVICE, Duty.SEALER}:
            grant("INSERT", *(_named(table, schema) for table in _SEALING))
            grant("EXECUTE", prepare)
    return statements


def apply(connection: Connection, which: Database, duty: Duty, role: str) -> list[str]:
    """Run the statements; returns them.

    Raises:
        GrantError: no such role, or one that no grant and no revoke binds.
        sqlalchemy.exc.SQLAlchemyError: the database refuses.
    """
    statements = grants(which, duty, role, current_schema(connection))
    _require_bound(connection, role)
    for statement in statements:
        connection.exec_driver_sql(statement.replace("%", "%%"))
    return statements


def current_schema(connection: Connection) -> str:
    """Name the schema the tables are in."""
    return str(connection.execute(text("SELECT current_schema()")).scalar_one())


def _require_bound(connection: Connection, role: str) -> None:
    """A superuser, the owner and members of the owner may do everything, whatever is revoked."""
    found = connection.execute(
        text(
            "SELECT r.rolsuper, EXISTS (SELECT 1 FROM pg_class AS c WHERE c.relkind IN ('r', 'p') "
            "AND c.relnamespace = current_schema()::regnamespace "
            "AND pg_has_role(r.oid, c.relowner, 'MEMBER')) "
            "FROM pg_roles AS r WHERE r.rolname = :role"
        ),
        {"role": role},
    ).first()
    if found is None:
        raise GrantError(f"there is no role {role!r}: make it with CREATE ROLE ... LOGIN")
    superuser, owner = found
    if superuser:
        raise GrantError(f"role {role!r} is a superuser, which no revoke binds: take another")
    if owner:
        raise GrantError(
            f"role {role!r} owns tables, or is a member of who does, and no revoke binds an owner: "
            "let one role migrate and another serve"
        )


def _named(table: Table, schema: str) -> str:
    return f"{_quoted(schema)}.{_quoted(table.name)}"


def _sequences(table: Table, schema: str) -> list[str]:
    column = table.autoincrement_column
    return [] if column is None else [f"{_quoted(schema)}.{_quoted(f'{table.name}_{column.name}_seq')}"]


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
