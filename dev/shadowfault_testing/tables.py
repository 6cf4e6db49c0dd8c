"""A table of every kind of column in two databases, of any two kinds of server, for tests of the verifier."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause, text

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.describe import describe_pair
from shadowfault_api.verifier.differences import differing_keys
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.tables import Kind, TableSpec
from shadowfault_testing.databases import postgresql_pair, sqlite_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shadowfault_testing.postgres import PostgresServer

COLUMNS = """
    part {int} NOT NULL, name {text} NOT NULL, label {text}, amount {numeric}, counted {int}, at {instant},
    document {json}, raw {bytes}, ok {bool}, ratio {float}
"""
TYPES = {
    "postgresql": {
        "int": "bigint", "text": "text", "numeric": "numeric(20,4)", "instant": "timestamptz",
        "json": "jsonb", "bytes": "bytea", "bool": "boolean", "float": "double precision",
    },
    "sqlite": {
        "int": "INTEGER", "text": "TEXT", "numeric": "TEXT", "instant": "TEXT", "json": "TEXT",
        "bytes": "BLOB", "bool": "BOOLEAN", "float": "REAL",
    },
}  # fmt: skip
KINDS = {"amount": Kind.NUMBER, "at": Kind.INSTANT, "document": Kind.JSON}
NAMES = ["part", "name", "label", "amount", "counted", "at", "document", "raw", "ok", "ratio"]


BASE = ("l", "1.00", 1, "2026-01-02 03:04:05+00:00", '{"a": 1}', b"x", True, 0.0)


Table = dict[tuple[int, str], tuple[Any, ...]]


@dataclass
class Pair:
    """Two databases, and a table `things` in each."""

    primary: Side
    shadow: Side

    def create(self) -> None:
        """Make the table."""
        for side in (self.primary, self.shadow):
            types = TYPES["postgresql" if side.postgresql else "sqlite"]
            run(side, f"CREATE TABLE things ({COLUMNS.format_map(types)}, PRIMARY KEY (part, name))")

    def fill(self, primary: Table, shadow: Table) -> None:
        """Put these rows in place of what is there."""
        for side, rows in ((self.primary, primary), (self.shadow, shadow)):
            with side.engine.begin() as connection:
                connection.execute(text("DELETE FROM things"))
                if rows:
                    values = [dict(zip(NAMES, (*key, *row), strict=True)) for key, row in rows.items()]
                    connection.execute(insertion(side), values)

    def specs(self) -> tuple[TableSpec, TableSpec]:
        """Describe the table of each."""
        here, there = describe_pair(self.primary, self.shadow, "things")
        if self.primary.postgresql or here.columns[0].name != "label":
            return here, there
        # SQLite has no types for these: people say what the text is.
        columns = tuple(replace(column, kind=KINDS.get(column.name, column.kind)) for column in here.columns)
        return replace(here, columns=columns), replace(there, columns=columns)

    def differing(self, *, specs: tuple[TableSpec, TableSpec] | None = None, **options: Any) -> list[Any]:  # noqa: ANN401 - of `differing_keys`
        """Give the keys that differ."""
        here, there = specs or self.specs()
        found = differing_keys((self.primary, here), (self.shadow, there), **options)
        return [key for keys in found for key in keys]


@contextmanager
def opened(kind: str, folder: Path, server: PostgresServer | None) -> Iterator[Pair]:
    """Open a pair of the kind sqlite, postgresql or mixed."""
    with contextmanager(urls)(kind, folder, server) as found:
        engines = [create_sync_engine(url) for url in found]
        yield Pair(
            *(Side(name, engine, 30.0) for name, engine in zip(("primary", "shadow"), engines, strict=True))
        )
        for engine in engines:
            engine.dispose()


def urls(kind: str, folder: Path, server: PostgresServer | None) -> Iterator[tuple[str, str]]:
    """Give the two URLs."""
    files = sqlite_pair(folder)
    if server is None:
        yield files.primary, files.shadow
        return
    with postgresql_pair(server) as pair:
        yield pair.primary, files.shadow if kind == "mixed" else pair.shadow


def run(side: Side, statement: str, **values: object) -> None:
    """Run a statement, and commit it."""
    with side.engine.begin() as connection:
        connection.execute(text(statement), values)


def insertion(side: Side) -> TextClause:
    """Build the insert of one row."""
    places = {name: f":{name}" for name in NAMES}
    if side.postgresql:
        places |= {"document": "CAST(:document AS jsonb)", "at": "CAST(:at AS timestamptz)"}
        places |= {"amount": "CAST(:amount AS numeric)"}
    return text(f"INSERT INTO things VALUES ({', '.join(places[name] for name in NAMES)})")  # noqa: S608 - constants
