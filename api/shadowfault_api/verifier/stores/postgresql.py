"""A table in PostgreSQL. Digests are made by the server; only keys that differ are read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DBAPIError

from shadowfault_api.verifier.canonical import WRAP
from shadowfault_api.verifier.errors import SchemaError, UnprovenError
from shadowfault_api.verifier.stores import Changed, Digest, Key, Method, Row, Span, Window
from shadowfault_api.verifier.stores.histogram import Histogram
from shadowfault_api.verifier.stores.postgresql_digest import Value, form, native_digest, portable_digest
from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores.probes import Probe
    from shadowfault_api.verifier.tables import ColumnSpec, TableSpec

# PostgreSQL's parser gives up somewhere above 1200 whole numbers (*measured*, 15).
_MOST_COLUMNS: Final = 1000
_BARE_KEYS: Final = frozenset({Kind.INTEGER, Kind.BYTES})
# Enums, domains, arrays and what else there is; and documents, whose strings are ordered by a collation.
_ORDERED_AS_TEXT: Final = frozenset({Kind.LITERAL, Kind.JSON})

# datlocprovider is new in PostgreSQL 15: read through JSON it is null before, and that means libc.
_BY_BYTES: Final = """
    SELECT a.attname FROM pg_attribute a
    JOIN pg_collation c ON c.oid = a.attcollation
    JOIN pg_database d ON d.datname = current_database()
    WHERE a.attrelid = to_regclass(%(table)s) AND (c.collname IN ('C', 'POSIX') OR (
        c.collname = 'default' AND d.datcollate IN ('C', 'POSIX')
        AND coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') = 'c'))
"""
# A sum needs no order: row by row along the index takes up to a tenth more (*measured*), without read-ahead.
# What is left for a part of a table is its index and then page by page. The whole table once more for each
# large part, which the server's costs prefer where a part is a third of it, takes a fifth more (*measured*).
_PAGE_BY_PAGE: Final = "SELECT set_config('enable_indexscan', 'off', true)"
_BY_INDEX: Final = f"{_PAGE_BY_PAGE}, set_config('enable_seqscan', 'off', true)"
_HISTOGRAM: Final = """
    SELECT s.histogram_bounds::text::text[], c.reltuples
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited
    WHERE c.oid = to_regclass(%(table)s) AND s.attname = %(column)s
"""
_ESTIMATE: Final = "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%(table)s)"


class PostgresqlStore:
    """A table in PostgreSQL."""

    def __init__(self, side: Side, spec: TableSpec, method: Method = Method()) -> None:  # noqa: B008 - a constant
        self._side = side
        self.spec = spec
        self._table = ".".join(quoted(part) for part in (spec.schema, spec.name) if part)
        self._source = f"{self._table} AS scanned"
        # Qualified: a bare name in ORDER BY would be that of an output column, the key's text form.
        self._names = [f"scanned.{quoted(column.name)}" for column in spec.key]
        self._keys = ", ".join(
            name if column.kind in _BARE_KEYS else f"{name}::text"
            for name, column in zip(self._names, spec.key, strict=True)
        )
        self._live = "true" if spec.tombstone is None else f"{quoted(spec.tombstone)} IS NULL"
        key, columns = ([_value(column) for column in part] for part in (spec.key, spec.columns))
        self._forms = [form(value.kind, value.sql) for value in columns]
        self._digest = _digest(key, columns, method)

    def digest(self, span: Span) -> Digest:
        """See `Store`."""
        where, bound = self._within(span)
        query = f"SELECT count(*), sum({self._digest}) FROM {self._source} WHERE {self._live} AND {where}"  # noqa: S608 - quoted names
        with self._side.snapshot() as connection:
            connection.exec_driver_sql(_PAGE_BY_PAGE if span == Span() else _BY_INDEX)
            count, total = connection.exec_driver_sql(query, bound).one()
        self._side.budget.charge(count)
        return Digest(count, int(total or 0) % WRAP)

    def boundary(self, span: Span, rows: int) -> Key | None:
        """See `Store`."""
        where, bound = self._within(span)
        query = (
            f"SELECT {self._keys} FROM {self._source} WHERE {self._live} AND {where} "  # noqa: S608 - quoted names
            f"ORDER BY {', '.join(self._order())} OFFSET %(offset)s LIMIT 1"
        )
        found = self._fetch(query, {**bound, "offset": rows - 1})
        return tuple(found[0]) if found else None

    def edge(self, span: Span, rows: int) -> Key | None:
        """See `Store`."""
        known = None if self._histogram is None else self._histogram.edge(span, rows)
        return self.boundary(span, rows) if known is None else known

    @cached_property
    def _histogram(self) -> Histogram | None:
        # Of an index over several columns it tells only of the first.
        if len(self.spec.key) != 1 or self._order() != self._names:
            return None
        (column,) = self.spec.key
        found = self._fetch(_HISTOGRAM, {"table": self._table.replace("%%", "%"), "column": column.name}) or (
            (None, 0),
        )
        return Histogram.of(column.kind, *found[0])

    def prints(self, span: Span) -> dict[Key, int]:
        """See `Store`."""
        where, bound = self._within(span)
        return self._prints(where, bound)

    def prints_of(self, keys: Sequence[Key]) -> dict[Key, int]:
        """See `Store`."""
        where, bound = self._among(keys)
        return self._prints(where, bound)

    def digest_changed(self, window: Window) -> Digest:
        """See `Store`."""
        if self.spec.changed_at is None:
            return Digest(0, 0)
        where, bound = self._changed_in(window)
        query = f"SELECT count(*), sum({self._digest}) FROM {self._source} WHERE {self._live} AND {where}"  # noqa: S608 - quoted names
        ((count, total),) = self._fetch(query, bound)
        self._side.budget.charge(count)
        return Digest(count, int(total or 0) % WRAP)

    def changed(
        self, window: Window, after: Changed | None, limit: int, *, dead: bool = False
    ) -> list[Changed]:
        """See `Store`."""
        if self.spec.changed_at is None or (dead and self.spec.tombstone is None):
            return []
        at = f"scanned.{quoted(self.spec.changed_at)}"
        where, bound = self._changed_in(window)
        bound["limit"] = limit
        if after is not None:
            bound |= {"at": after.at, **self._bound("after", after.key)}
            values = ", ".join(["CAST(%(at)s AS timestamptz)", *self._values("after")])
            where += f" AND ({', '.join([at, *self._order()])}) > ({values})"
        if dead:
            where += f" AND NOT ({self._live})"
        query = (
            f"SELECT {at}::text, {self._keys} FROM {self._source} WHERE {where} "  # noqa: S608 - quoted names
            f"ORDER BY {', '.join([at, *self._order()])} LIMIT %(limit)s"
        )
        found = self._fetch(query, bound)
        self._side.budget.charge(len(found))
        return [Changed(row[0], tuple(row[1:])) for row in found]

    def _changed_in(self, window: Window) -> tuple[str, dict[str, object]]:
        at = f"scanned.{quoted(self.spec.changed_at or '')}"
        if window.before is None:
            return f"{at} >= %(since)s", {"since": window.since}
        return f"{at} >= %(since)s AND {at} < %(before)s", {"since": window.since, "before": window.before}

    def get(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """See `Store`."""
        where, bound = self._among(keys)
        query = (
            f"SELECT {', '.join([self._keys, *self._forms, self._live])} FROM {self._source} WHERE {where}"  # noqa: S608 - quoted names
        )
        width = len(self.spec.key)
        rows = connection.exec_driver_sql(query, bound).all()
        self._side.budget.charge(len(keys))
        return {tuple(row[:width]): Row(tuple(row[width:-1]), row[-1]) for row in rows}

    def estimate(self) -> int:
        """See `Store`; what the server's statistics say, or a count where there are none."""
        ((known,),) = self._fetch(_ESTIMATE, {"table": self._table.replace("%%", "%")}) or ((-1,),)
        if known is None or known <= 0:
            ((known,),) = self._fetch(f"SELECT count(*) FROM {self._table}", {})  # noqa: S608 - quoted names
        return int(known)

    def keyless(self) -> bool:
        """See `Store`."""
        nulls = " OR ".join(f"{name} IS NULL" for name in self._names)
        ((found,),) = self._fetch(f"SELECT EXISTS (SELECT 1 FROM {self._source} WHERE {nulls})", {})  # noqa: S608 - quoted names
        return bool(found)

    def probe(self, probes: Sequence[Probe], method: Method) -> list[int]:
        """See `Store`.

        Raises:
            UnprovenError: the server has not that digest.
        """
        if method.seed is not None and len(self.spec.columns) > _MOST_COLUMNS:
            raise UnprovenError(f"of more than {_MOST_COLUMNS} columns the expression is nested too deeply")
        with self._side.snapshot() as connection:
            key = [] if method.seed is None else [Value(Kind.TEXT, "'key'")]
            expressions = [_digest(key, [Value(probe.kind, f"({probe.sql})")], method) for probe in probes]
            try:
                return list(connection.exec_driver_sql(f"SELECT {', '.join(expressions)}", {}).one())
            except DBAPIError as error:
                raise UnprovenError(f"{self._side.described()} cannot make the digest") from error

    def _prints(self, where: str, bound: dict[str, object]) -> dict[Key, int]:
        query = f"SELECT {self._keys}, {self._digest} FROM {self._source} WHERE {self._live} AND {where}"  # noqa: S608 - quoted names
        found = self._fetch(query, bound)
        self._side.budget.charge(len(found))
        return {tuple(row[:-1]): row[-1] for row in found}

    def _fetch(self, query: str, bound: dict[str, object]) -> Sequence[Any]:
        with self._side.snapshot() as connection:
            return connection.exec_driver_sql(query, bound).all()

    def _order(self) -> list[str]:
        """Give the key in an order all servers share."""
        return [expression for expression, _ in self._ordered]

    @cached_property
    def _ordered(self) -> list[tuple[str, str]]:
        """Expressions of that order and their types; bare where it is so, for only then its index serves."""
        found = self._fetch(_BY_BYTES, {"table": self._table.replace("%%", "%")})
        by_bytes = {row[0] for row in found}
        return [
            (name, column.sql_type) if column.name in by_bytes else _by_bytes(name, column)
            for name, column in zip(self._names, self.spec.key, strict=True)
        ]

    def _within(self, span: Span) -> tuple[str, dict[str, object]]:
        tests: list[str] = []
        bound: dict[str, object] = {}
        for name, sign, key in (("after", ">", span.after), ("upto", "<=", span.upto)):
            if key is None:
                continue
            bound |= self._bound(name, key)
            tests.append(f"({', '.join(self._order())}) {sign} ({', '.join(self._values(name))})")
        return " AND ".join(tests) or "true", bound

    def _values(self, name: str) -> list[str]:
        """Give the placeholders of a key, to be compared with what `_order` gives."""
        return [f"CAST(%({name}{place})s AS {sql_type})" for place, (_, sql_type) in enumerate(self._ordered)]

    @staticmethod
    def _bound(name: str, key: Key) -> dict[str, object]:
        """Give what those stand for."""
        return {f"{name}{place}": value for place, value in enumerate(key)}

    def _among(self, keys: Sequence[Key]) -> tuple[str, dict[str, object]]:
        bound: dict[str, object] = {
            f"keys{place}": list(values) for place, values in enumerate(zip(*keys, strict=True))
        }
        if not keys:
            return "false", {}
        if len(self.spec.key) == 1 and not self.spec.key[0].sql_type.endswith("[]"):
            return f"{self._names[0]} = ANY (CAST(%(keys0)s AS {self.spec.key[0].sql_type}[]))", bound
        # As text and cast one by one: there is no array of arrays of different lengths.
        places = range(len(self.spec.key))
        arrays = [
            f"CAST(%(keys{place})s AS {column.sql_type if column.kind in _BARE_KEYS else 'text'}[])"
            for place, column in enumerate(self.spec.key)
        ]
        values = [f"CAST(wanted.k{place} AS {self.spec.key[place].sql_type})" for place in places]
        wanted = f"unnest({', '.join(arrays)}) AS wanted({', '.join(f'k{place}' for place in places)})"
        return f"({', '.join(self._names)}) IN (SELECT {', '.join(values)} FROM {wanted})", bound  # noqa: S608 - quoted names


def quoted(name: str) -> str:
    """Quote an identifier, for a statement in which `%` announces a parameter."""
    if "\0" in name:
        raise SchemaError("a name cannot hold a NUL")
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'


def _by_bytes(name: str, column: ColumnSpec) -> tuple[str, str]:
    """Give a column in an order that depends on no collation and on no enum's labels, and its type there."""
    if column.kind is Kind.TEXT:
        return f'{name} COLLATE "C"', column.sql_type
    if column.kind in _ORDERED_AS_TEXT:
        return f'{name}::text COLLATE "C"', "text"
    return name, column.sql_type


def _value(column: ColumnSpec) -> Value:
    """Give the kind whose form serves: `to_jsonb` of a `jsonb` takes a third of a digest for nothing."""
    written = column.kind is Kind.JSON and column.sql_type == "jsonb"
    return Value(Kind.LITERAL if written else column.kind, quoted(column.name), column.nullable)


def _digest(key: Sequence[Value], columns: Sequence[Value], method: Method) -> str:
    return (
        portable_digest([*key, *columns]) if method.seed is None else native_digest(key, columns, method.seed)
    )
