"""What a table is to the verifier: its key, its columns, and what each column calls different. No SQL."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a column holds, and so when two of its values are the same.

    Attributes:
        TEXT: the same characters.
        INTEGER: the same whole number of up to 64 bits.
        NUMBER: the same number: 1.0 is 1.00.
        DECIMAL: the same number as it is written: 1.0 is not 1.00.
        FLOAT: the same bits: -0 is not 0.
        BOOLEAN: true or false.
        BYTES: the same bytes.
        INSTANT: the same microsecond, whatever the time zone it is written in.
        TIMESTAMP: the same date and time of day, without a zone.
        DATE: the same day.
        UUID: the same number in any case of letters.
        JSON: the same document as `jsonb` prints it: order of keys and spaces are nothing, 1 is not 1.0.
        LITERAL: the same text form, under fixed settings; arrays, `json`, `xml`, `point` and all the rest.
    """

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    BYTES = "bytes"
    INSTANT = "instant"
    TIMESTAMP = "timestamp"
    DATE = "date"
    UUID = "uuid"
    JSON = "json"
    LITERAL = "literal"


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column. `sql_type` is PostgreSQL's name of its type: a key's bound values are cast to it.

    `nullable` is a hint: where it is False, a NULL costs a closer look, and is found all the same. `declared`
    is the type with its modifier, as the table has it; values of the other side need not fit into that.
    """

    name: str
    kind: Kind
    sql_type: str = "text"
    nullable: bool = True
    declared: str | None = None


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table, or the part of it that counts.

    Attributes:
        name: the table, without quotes.
        key: the columns that identify a row, in the order of the index that serves it.
        columns: the columns compared beside the key.
        schema: where it is; the connection's own path is searched otherwise.
        tombstone: a column that is NULL in rows that live; the others count as absent.
        changed_at: an instant each write moves forward: a hint for incremental passes, never proof.
    """

    name: str
    key: tuple[ColumnSpec, ...]
    columns: tuple[ColumnSpec, ...]
    schema: str | None = None
    tombstone: str | None = None
    changed_at: str | None = None

    @property
    def compared(self) -> tuple[ColumnSpec, ...]:
        """Key and columns: what a digest covers."""
        return (*self.key, *self.columns)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds that occur."""
        return frozenset(column.kind for column in self.compared)


# None of them is NULL in a row that lives.
_KEY: Final = (ColumnSpec("id", Kind.TEXT, nullable=False),)
_COLUMNS: Final = (
    ColumnSpec("title", Kind.TEXT, nullable=False),
    ColumnSpec("price", Kind.NUMBER, nullable=False),
    ColumnSpec("version", Kind.INTEGER, nullable=False),
    ColumnSpec("created_at", Kind.INSTANT, nullable=False),
    ColumnSpec("updated_at", Kind.INSTANT, nullable=False),
)
LISTINGS: Final = TableSpec("listings", _KEY, _COLUMNS, changed_at="updated_at")
SHADOW_LISTINGS: Final = TableSpec(
    "listings", _KEY, _COLUMNS, tombstone="deleted_at", changed_at="updated_at"
)
