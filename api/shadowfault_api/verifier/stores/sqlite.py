"""A table in SQLite, whose digest is the portable one, by a function registered with the connection."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from shadowfault_api.verifier.canonical import WRAP, canonical, row_print
from shadowfault_api.verifier.errors import UnprovenError
from shadowfault_api.verifier.stores import Changed, Digest, Key, Method, Row, Span, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores.probes import Probe
    from shadowfault_api.verifier.tables import TableSpec

_KEYS_AT_ONCE = 500


class SqliteStore:
    """A table in SQLite."""

    def __init__(self, side: Side, spec: TableSpec) -> None:
        self._side = side
        self.spec = spec
        self._table = ".".join(_quoted(part) for part in (spec.schema, spec.name) if part)
        self._keys = ", ".join(_quoted(column.name) for column in spec.key)
        self._order = ", ".join(f"{_quoted(column.name)} COLLATE BINARY" for column in spec.key)
        self._compared = ", ".join(_quoted(column.name) for column in spec.compared)
        self._kinds = [column.kind for column in spec.compared]
        self._live = "1" if spec.tombstone is None else f"{_quoted(spec.tombstone)} IS NULL"
        self._aggregate = _aggregate(self)

    def digest(self, span: Span) -> Digest:
        """See `Store`."""
        return self._digested(*self._within(span))

    def _digested(self, where: str, bound: Sequence[object]) -> Digest:
        query = (
            f"SELECT count(*), shadowfault_digest({self._compared}) FROM {self._table} "  # noqa: S608 - quoted names
            f"WHERE {self._live} AND {where}"
        )
        with self._side.snapshot() as connection:
            driver: Any = connection.connection.driver_connection
            driver.create_aggregate("shadowfault_digest", -1, self._aggregate)
            count, total = connection.exec_driver_sql(query, tuple(bound)).one()
        self._side.budget.charge(count)
        return Digest(count, int(total or 0))

    def boundary(self, span: Span, rows: int) -> Key | None:
        """See `Store`."""
        where, bound = self._within(span)
        query = (
            f"SELECT {self._keys} FROM {self._table} WHERE {self._live} AND {where} "  # noqa: S608 - quoted names
            f"ORDER BY {self._order} LIMIT 1 OFFSET ?"
        )
        found = self._fetch(query, [*bound, rows - 1])
        return tuple(found[0]) if found else None

    def edge(self, span: Span, rows: int) -> Key | None:
        """See `Store`; SQLite has no statistics of its own accord."""
        return self.boundary(span, rows)

    def prints(self, span: Span) -> dict[Key, int]:
        """See `Store`."""
        where, bound = self._within(span)
        return self._prints(where, bound)

    def prints_of(self, keys: Sequence[Key]) -> dict[Key, int]:
        """See `Store`."""
        prints: dict[Key, int] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            prints |= self._prints(*self._among(keys[start : start + _KEYS_AT_ONCE]))
        return prints

    def digest_changed(self, window: Window) -> Digest:
        """See `Store`."""
        if self.spec.changed_at is None:
            return Digest(0, 0)
        return self._digested(*self._changed_in(window))

    def changed(
        self, window: Window, after: Changed | None, limit: int, *, dead: bool = False
    ) -> list[Changed]:
        """See `Store`."""
        if self.spec.changed_at is None or (dead and self.spec.tombstone is None):
            return []
        at = _quoted(self.spec.changed_at)
        where, bound = self._changed_in(window)
        if after is not None:
            where += f" AND ({at}, {self._order}) > ({', '.join('?' * (1 + len(after.key)))})"
            bound += [after.at, *after.key]
        if dead:
            where += f" AND NOT ({self._live})"
        query = (
            f"SELECT {at}, {self._keys} FROM {self._table} WHERE {where} "  # noqa: S608 - quoted names
            f"ORDER BY {at}, {self._order} LIMIT ?"
        )
        found = self._fetch(query, [*bound, limit])
        self._side.budget.charge(len(found))
        return [Changed(row[0], tuple(row[1:])) for row in found]

    def _changed_in(self, window: Window) -> tuple[str, list[object]]:
        at = _quoted(self.spec.changed_at or "")
        tests, bound = [], []
        for sign, moment in ((">=", window.since), ("<", window.before)):
            if moment is not None:
                tests.append(f"{at} {sign} ?")
                bound.append(moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds"))
        return " AND ".join(tests), [*bound]

    def get(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, Row]:
        """See `Store`."""
        found: dict[Key, Row] = {}
        columns = ", ".join([self._keys, *(_quoted(column.name) for column in self.spec.columns)])
        kinds = [column.kind for column in self.spec.columns]
        width = len(self.spec.key)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            where, bound = self._among(keys[start : start + _KEYS_AT_ONCE])
            query = f"SELECT {columns}, {self._live} FROM {self._table} WHERE {where}"  # noqa: S608 - quoted names
            for row in connection.exec_driver_sql(query, tuple(bound)):
                values = tuple(map(canonical, kinds, row[width:-1]))
                found[tuple(row[:width])] = Row(values, bool(row[-1]))
        self._side.budget.charge(len(keys))
        return found

    def estimate(self) -> int:
        """See `Store`; SQLite keeps no statistics of its own accord, so this counts."""
        return int(self._fetch(f"SELECT count(*) FROM {self._table}", [])[0][0])  # noqa: S608 - quoted names

    def keyless(self) -> bool:
        """See `Store`; SQLite lets a NULL into most primary keys."""
        nulls = " OR ".join(f"{_quoted(column.name)} IS NULL" for column in self.spec.key)
        return bool(self._fetch(f"SELECT EXISTS (SELECT 1 FROM {self._table} WHERE {nulls})", [])[0][0])  # noqa: S608 - quoted names

    def probe(self, probes: Sequence[Probe], method: Method) -> list[int]:
        """See `Store`.

        Raises:
            UnprovenError: SQLite has no digest of its own.
        """
        if method.seed is not None:
            raise UnprovenError("SQLite has no digest of its own")
        return [row_print([canonical(probe.kind, probe.raw)]) for probe in probes]

    def print(self, raw: Sequence[object]) -> int:
        """Digest a row as the driver returns it: key, then columns."""
        return row_print(map(canonical, self._kinds, raw))

    def _prints(self, where: str, bound: Sequence[object]) -> dict[Key, int]:
        query = f"SELECT {self._compared} FROM {self._table} WHERE {self._live} AND {where}"  # noqa: S608 - quoted names
        width = len(self.spec.key)
        found = self._fetch(query, bound)
        self._side.budget.charge(len(found))
        return {tuple(row[:width]): self.print(row) for row in found}

    def _fetch(self, query: str, bound: Sequence[object]) -> Sequence[Any]:
        with self._side.snapshot() as connection:
            return connection.exec_driver_sql(query, tuple(bound)).all()

    def _within(self, span: Span) -> tuple[str, list[object]]:
        tests = ["1"]
        bound: list[object] = []
        for sign, key in ((">", span.after), ("<=", span.upto)):
            if key is not None:
                tests.append(f"({self._order}) {sign} ({', '.join('?' * len(key))})")
                bound.extend(key)
        return " AND ".join(tests), bound

    def _among(self, keys: Sequence[Key]) -> tuple[str, list[object]]:
        if not keys:
            return "0", []
        rows = ", ".join([f"({', '.join('?' * len(self.spec.key))})"] * len(keys))
        return f"({self._keys}) IN (VALUES {rows})", [value for key in keys for value in key]


def _aggregate(store: SqliteStore) -> type:
    """Make the class SQLite calls: its own `sum` fails where 64 bits overflow."""

    class Sums:
        def __init__(self) -> None:
            self.total = 0

        def step(self, *raw: object) -> None:
            self.total += store.print(raw)

        def finalize(self) -> str:
            return str(self.total % WRAP)

    return Sums


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
