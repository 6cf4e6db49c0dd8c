"""Descriptions of tables, read from the databases."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.errors import SchemaError
from shadowfault_api.verifier.stores.postgresql import quoted
from shadowfault_api.verifier.tables import ColumnSpec, Kind, TableSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shadowfault_api.verifier.side import Side

_POSTGRESQL: Final[Mapping[str, Kind]] = {
    "smallint": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "real": Kind.FLOAT,
    "double precision": Kind.FLOAT,
    "text": Kind.TEXT,
    "character varying": Kind.TEXT,
    "character": Kind.TEXT,
    "boolean": Kind.BOOLEAN,
    "bytea": Kind.BYTES,
    "timestamp with time zone": Kind.INSTANT,
    "timestamp without time zone": Kind.TIMESTAMP,
    "date": Kind.DATE,
    "uuid": Kind.UUID,
    "jsonb": Kind.JSON,
}
_SQLITE: Final = (
    (re.compile("BOOL"), Kind.BOOLEAN),
    (re.compile("JSON"), Kind.JSON),
    (re.compile("INT"), Kind.INTEGER),
    (re.compile("CHAR|CLOB|TEXT|DATE|TIME"), Kind.TEXT),
    (re.compile("REAL|FLOA|DOUB"), Kind.FLOAT),
    (re.compile("NUM|DEC"), Kind.NUMBER),
    (re.compile("BLOB|^$"), Kind.BYTES),
)
_COLUMNS: Final = """
    SELECT a.attname, format_type(a.atttypid, NULL), format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
        array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum)
    FROM pg_attribute a
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
"""


def describe(side: Side, name: str, schema: str | None = None) -> TableSpec:
    """Describe a table by what its database says of it. Its primary key is the key.

    A `numeric` without a scale keeps the one it is given, so there 1.0 is not 1.00; with one, they are equal.

    Raises:
        SchemaError: there is no such table, or it has no primary key.
    """
    table = ".".join(quoted(part) for part in (schema, name) if part)
    with side.snapshot() as connection:
        if side.postgresql:
            rows = connection.exec_driver_sql(_COLUMNS, {"table": table.replace("%%", "%")}).all()
            columns = [(_of_postgresql(*row[:4]), row[4]) for row in rows]
        else:
            rows = connection.exec_driver_sql("SELECT * FROM pragma_table_info(?)", (name,)).all()
            columns = [(ColumnSpec(row[1], _of_sqlite(row[2])), row[5] or None) for row in rows]
    if not columns:
        raise SchemaError(f"{side.described()} has no table {name}")
    key = [column for column, place in sorted(columns, key=lambda item: item[1] or 0) if place is not None]
    if not key:
        raise SchemaError(f"{name} in {side.described()} has no primary key")
    return TableSpec(name, tuple(key), tuple(c for c, place in columns if place is None), schema)


def describe_pair(
    primary: Side, shadow: Side, name: str, schema: str | None = None
) -> tuple[TableSpec, TableSpec]:
    """Describe a table on both sides, so that the two can be compared.

    SQLite says little of its columns: where the other side is PostgreSQL, its description holds for both, and
    arrays are compared as the JSON they are on SQLite.

    Raises:
        SchemaError: they have not the same columns, or not of the same kinds.
    """
    here, there = describe(primary, name, schema), describe(shadow, name, schema)
    ours, theirs = ({column.name for column in spec.compared} for spec in (here, there))
    if ours != theirs:
        only = ", ".join(sorted(ours ^ theirs))
        raise SchemaError(f"{name} has not the same columns on both sides: {only}")
    keys = [[column.name for column in spec.key] for spec in (here, there)]
    if sorted(keys[0]) != sorted(keys[1]):
        both = " and ".join(f"({', '.join(key)})" for key in keys)
        raise SchemaError(f"{name} has not the same primary key on both sides: {both}")
    if primary.postgresql != shadow.postgresql:
        known = _portable(here if primary.postgresql else there)
        return known, known
    return _common(here, there), _common(_ordered(there, here), here)


def _of_postgresql(name: str, sql_type: str, declared: str, nullable: bool) -> ColumnSpec:
    kind = _POSTGRESQL.get(sql_type, Kind.LITERAL)
    if sql_type == "numeric":
        kind = Kind.DECIMAL if declared == sql_type else Kind.NUMBER
    return ColumnSpec(name, kind, "text" if kind is Kind.TEXT else sql_type, nullable, declared)


def _of_sqlite(declared: str) -> Kind:
    return next((kind for pattern, kind in _SQLITE if pattern.search(declared.upper())), Kind.NUMBER)


def _portable(spec: TableSpec) -> TableSpec:
    columns = [
        replace(column, kind=Kind.JSON)
        if column.sql_type.endswith("[]") or column.sql_type == "json"
        else column
        for column in spec.columns
    ]
    return replace(spec, columns=tuple(columns))


def _ordered(spec: TableSpec, like: TableSpec) -> TableSpec:
    """Put key and columns into the order of another: two tables may have been made in different ways."""
    places = {column.name: place for place, column in enumerate(like.compared)}
    key, columns = (
        tuple(sorted(part, key=lambda column: places[column.name])) for part in (spec.key, spec.columns)
    )
    return replace(spec, key=key, columns=columns)


def _common(spec: TableSpec, other: TableSpec) -> TableSpec:
    """Compare a number with a scale with one without as numbers, and `json` with `jsonb` as documents.

    Of one scale on both sides, equal numbers are written alike, so they can be compared as they are written.
    """
    others = {column.name: column for column in other.columns}
    columns = []
    for column in spec.columns:
        there = others[column.name]
        kind = column.kind
        if {kind, there.kind} == {Kind.DECIMAL, Kind.NUMBER}:
            kind = Kind.NUMBER
        elif kind is Kind.NUMBER and column.declared is not None and column.declared == there.declared:
            kind = Kind.DECIMAL
        elif {kind, there.kind} == {Kind.LITERAL, Kind.JSON}:
            kind = Kind.JSON
        columns.append(replace(column, kind=kind))
    return replace(spec, columns=tuple(columns))
