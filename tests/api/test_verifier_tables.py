"""Tables of every kind of column, on every pair of servers: never a difference missed, never one made up."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import TextClause, text

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.describe import describe, describe_pair
from shadowfault_api.verifier.differences import differing_keys
from shadowfault_api.verifier.errors import SchemaError, UnprovenError
from shadowfault_api.verifier.pace import Pace
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.stores import Digest, Method, Span, Window
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.stores.postgresql import PostgresqlStore
from shadowfault_api.verifier.stores.probes import Probe, probes_of
from shadowfault_api.verifier.stores.sqlite import SqliteStore
from shadowfault_api.verifier.tables import Kind, TableSpec
from shadowfault_testing.databases import postgresql_pair, sqlite_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shadowfault_testing.postgres import PostgresServer

POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)
MIXED = pytest.param("mixed", marks=pytest.mark.postgres)
RELAXED = HealthCheck.function_scoped_fixture

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

# Pairs that others took for equal, and pairs that are.
LABELS = st.sampled_from([None, "", "<null>", "-", "x|y", "x", "y|z", "X", "é", "e\u0301", "\U0001f600"])
AMOUNTS = st.sampled_from([None, "0", "1.0", "1.00", "-1", "10000.0", "NaN", "123456789012345.6789"])
COUNTS = st.sampled_from([None, 0, 1, -1, 2**32, 2**32 + 1, 2**63 - 1])
INSTANTS = st.sampled_from(
    [None, "2026-01-02 03:04:05+00:00", "2026-01-02 05:04:05+02:00", "2026-01-02 03:04:05.000001+00:00"]
)
DOCUMENTS = st.sampled_from(
    [None, "null", "1", "1.0", '{"a": 1, "bb": 2}', '{"bb":2,"a":1}', '["\\u00e9", -0.0, 1e2]']
)
RAW = st.sampled_from([None, b"", b"\x00", b"\x00\xff"])
RATIOS = st.sampled_from([None, 0.0, -0.0, 0.1, 1e300])
ROW = st.tuples(
    LABELS, AMOUNTS, COUNTS, INSTANTS, DOCUMENTS, RAW, st.sampled_from([None, True, False]), RATIOS
)
KEYS = st.tuples(st.integers(-1, 2), st.sampled_from(["", "a", "B", "é", "\uffff", "\U0001f600"]))
TABLE = st.dictionaries(KEYS, ROW, max_size=14)
CHANGES = st.dictionaries(KEYS, st.none() | ROW, max_size=4)

Table = dict[tuple[int, str], tuple[Any, ...]]


@dataclass
class Pair:
    primary: Side
    shadow: Side

    def create(self) -> None:
        for side in (self.primary, self.shadow):
            types = TYPES["postgresql" if side.postgresql else "sqlite"]
            run(side, f"CREATE TABLE things ({COLUMNS.format_map(types)}, PRIMARY KEY (part, name))")

    def fill(self, primary: Table, shadow: Table) -> None:
        for side, rows in ((self.primary, primary), (self.shadow, shadow)):
            with side.engine.begin() as connection:
                connection.execute(text("DELETE FROM things"))
                if rows:
                    values = [dict(zip(NAMES, (*key, *row), strict=True)) for key, row in rows.items()]
                    connection.execute(insertion(side), values)

    def specs(self) -> tuple[TableSpec, TableSpec]:
        here, there = describe_pair(self.primary, self.shadow, "things")
        if self.primary.postgresql or here.columns[0].name != "label":
            return here, there
        # SQLite has no types for these: people say what the text is.
        columns = tuple(replace(column, kind=KINDS.get(column.name, column.kind)) for column in here.columns)
        return replace(here, columns=columns), replace(there, columns=columns)

    def differing(self, *, specs: tuple[TableSpec, TableSpec] | None = None, **options: Any) -> list[Any]:
        here, there = specs or self.specs()
        found = differing_keys((self.primary, here), (self.shadow, there), **options)
        return [key for keys in found for key in keys]


@contextmanager
def opened(kind: str, folder: Path, server: PostgresServer | None) -> Iterator[Pair]:
    with contextmanager(urls)(kind, folder, server) as found:
        engines = [create_sync_engine(url) for url in found]
        yield Pair(
            *(Side(name, engine, 30.0) for name, engine in zip(("primary", "shadow"), engines, strict=True))
        )
        for engine in engines:
            engine.dispose()


def urls(kind: str, folder: Path, server: PostgresServer | None) -> Iterator[tuple[str, str]]:
    files = sqlite_pair(folder)
    if server is None:
        yield files.primary, files.shadow
        return
    with postgresql_pair(server) as pair:
        yield pair.primary, files.shadow if kind == "mixed" else pair.shadow


@pytest.fixture(params=["sqlite", POSTGRES, MIXED])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    server = None if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    with opened(request.param, tmp_path, server) as found:
        yield found


@pytest.fixture
def things(pair: Pair) -> Pair:
    pair.create()
    return pair


def run(side: Side, statement: str, **values: Any) -> None:
    with side.engine.begin() as connection:
        connection.execute(text(statement), values)


def insertion(side: Side) -> TextClause:
    places = {name: f":{name}" for name in NAMES}
    if side.postgresql:
        places |= {"document": "CAST(:document AS jsonb)", "at": "CAST(:at AS timestamptz)"}
        places |= {"amount": "CAST(:amount AS numeric)"}
    return text(f"INSERT INTO things VALUES ({', '.join(places[name] for name in NAMES)})")


def naive(pair: Pair) -> set[tuple[Any, ...]]:
    """Read both tables whole, in their canonical forms, and compare."""
    stores = open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))[:2]
    tables = []
    for side, store in zip((pair.primary, pair.shadow), stores, strict=True):
        with side.snapshot() as connection:
            keys = [tuple(row) for row in connection.execute(text("SELECT part, name FROM things"))]
            tables.append(store.get(connection, keys))
    here, there = tables
    return {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)}


def check(pair: Pair, table: Table, changes: dict[Any, Any], leaf: int, first: int, portable: bool) -> None:
    if not pair.shadow.postgresql:  # SQLite itself turns -0 into 0
        table, changes = (
            {key: row and (*row[:-1], 0.0 if row[-1] == 0 else row[-1]) for key, row in rows.items()}
            for rows in (table, changes)
        )
    other = {key: row for key, row in {**table, **changes}.items() if row is not None}
    pair.fill(table, other)
    found = pair.differing(leaf=leaf, pace=Pace(first=first, least=1), portable=portable)
    assert len(found) == len(set(found))
    assert set(found) == naive(pair)
    only = table.keys() ^ other.keys()
    assert only <= set(found)
    assert set(found) - only <= {
        key for key in table.keys() & other.keys() if repr(table[key]) != repr(other[key])
    }


EXAMPLES = {"table": TABLE, "changes": CHANGES, "leaf": st.integers(1, 5), "first": st.integers(1, 20)}


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[RELAXED])
@given(**EXAMPLES)
def test_it_agrees_with_a_naive_comparison_on_sqlite(
    things: Pair, table: Table, changes: dict[Any, Any], leaf: int, first: int
) -> None:
    check(things, table, changes, leaf, first, portable=True)


@pytest.mark.parametrize("pair", [POSTGRES, MIXED], indirect=True)
@settings(max_examples=15, deadline=None, suppress_health_check=[RELAXED])
@given(**EXAMPLES, portable=st.booleans())
def test_it_agrees_with_a_naive_comparison_on_postgresql(
    things: Pair, table: Table, changes: dict[Any, Any], leaf: int, first: int, portable: bool
) -> None:
    check(things, table, changes, leaf, first, portable)


BASE = ("l", "1.00", 1, "2026-01-02 03:04:05+00:00", '{"a": 1}', b"x", True, 0.0)


@pytest.mark.parametrize(
    ("column", "here", "there", "equal"),
    [
        ("label", None, "<null>", False),
        ("label", None, "", False),
        ("label", None, "-", False),
        ("label", "x", "x ", False),
        ("amount", "1.0", "1.00", True),
        ("amount", "1", "10000", False),
        ("amount", "5", "-5", False),
        ("amount", "0", "-1", False),
        ("amount", "0", None, False),
        ("amount", "NaN", "0", False),
        ("amount", "NaN", None, False),
        ("counted", 0, None, False),
        ("counted", 1, 2**32, False),
        ("counted", 0, -1, False),
        ("at", "2026-01-02 03:04:05+00:00", "2026-01-02 05:04:05+02:00", True),
        ("at", "2026-01-02 03:04:05+00:00", "2026-01-02 03:04:05.000001+00:00", False),
        ("document", "1", "1.0", False),
        ("document", '{"a":1,"bb":2}', '{"bb": 2, "a": 1}', True),
        ("document", None, "null", False),
        ("raw", b"", None, False),
        ("ok", None, False, False),
    ],
)
def test_the_smallest_difference_is_one(
    things: Pair, column: str, here: object, there: object, equal: bool
) -> None:
    place = NAMES.index(column) - 2
    one, other = ({(1, "a"): (*BASE[:place], value, *BASE[place + 1 :])} for value in (here, there))
    things.fill(one, other)
    assert things.differing() == ([] if equal else [(1, "a")])
    assert things.differing(portable=True) == ([] if equal else [(1, "a")])


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize("portable", [False, True])
def test_a_negative_zero_is_another_number(things: Pair, portable: bool) -> None:
    """Not on SQLite, which itself turns it into 0."""
    things.fill({(1, "a"): (*BASE[:-1], 0.0)}, {(1, "a"): (*BASE[:-1], -0.0)})
    assert things.differing(portable=portable) == [(1, "a")]


def test_rows_that_swap_a_value_differ(things: Pair) -> None:
    """A sum of PostgreSQL's record hashes is the same for them in most cases: see `stores.postgresql`."""
    keys = [(number, "a") for number in range(40)]
    table = {key: (f"label {key[0]}", *BASE[1:]) for key in keys}
    other = {key: (f"label {key[0] ^ 1}", *BASE[1:]) for key in keys}
    things.fill(table, other)
    assert sorted(things.differing()) == keys
    shifted = {key: (label, *rest) for key, (label, *rest) in zip(keys, table.values(), strict=True)}
    shifted[0, "a"] = ("x|y", "1", *BASE[2:])
    shifted[1, "a"] = ("x", "1", *BASE[2:])
    things.fill(table | {(0, "a"): shifted[1, "a"], (1, "a"): shifted[0, "a"]}, shifted)
    assert sorted(things.differing()) == keys[:2]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize("key", ["text", "bigint", "numeric", "uuid", "timestamptz", "float8"])
def test_rows_that_swap_a_value_differ_whatever_the_key(pair: Pair, key: str) -> None:
    """First and last column, with numbers whose hash is the seed, or one less: NaN and zero."""
    form = {
        "uuid": "CAST(lpad(to_hex(n), 32, '0') AS uuid)",
        "timestamptz": "timestamptz '2026-01-01' + n * interval '1 s'",
    }.get(key, f"CAST(n AS {key})")
    for side, turn in ((pair.primary, 0), (pair.shadow, 1)):
        run(side, f"CREATE TABLE things (id {key} PRIMARY KEY, a numeric(9,2), b text, c numeric(9,2))")
        run(
            side,
            f"""
            INSERT INTO things SELECT {form},
                CASE (n + {turn}) % 2 WHEN 0 THEN 0 ELSE 'NaN'::numeric END, 'b',
                CASE (n + {turn}) % 2 WHEN 0 THEN 0 ELSE 'NaN'::numeric END
            FROM generate_series(0, 5) AS n
            """,
        )
    assert str(open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))[2]) == "native"
    assert len(pair.differing(leaf=1)) == 6
    for portable in (False, True):
        assert len(pair.differing(portable=portable)) == 6


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize("kind", ["text", "uuid", "numeric(9,2)", "timestamptz", "boolean"])
def test_four_rows_of_a_composite_key_that_swap_values_in_a_ring_differ(pair: Pair, kind: str) -> None:
    """In a sum over what is linear in the parts of the key, each part occurs with each value as often."""
    parts = {
        "uuid": "CAST(lpad(to_hex({0}), 32, '0') AS uuid)",
        "timestamptz": "timestamptz '2026-01-01' + {0} * interval '1 s'",
        "boolean": "{0} = 1",
    }
    one, other = (parts.get(kind, f"CAST({{0}} AS {kind})").format(name) for name in ("a", "b"))
    for side, turn in ((pair.primary, 0), (pair.shadow, 1)):
        run(side, f"CREATE TABLE things (a {kind}, b {kind}, value text, PRIMARY KEY (a, b))")
        run(
            side,
            f"""
            INSERT INTO things SELECT {one}, {other}, CASE (a + b + {turn}) % 2 WHEN 0 THEN 'x' ELSE 'y' END
            FROM generate_series(0, 1) AS a, generate_series(0, 1) AS b
            """,
        )
    for portable in (False, True):
        assert len(pair.differing(portable=portable)) == 4


_NUMBERS = st.decimals(-(10**12), 10**12, places=2) | st.sampled_from(["NaN", "Infinity", "-Infinity"])
_WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3).map(lambda upper: upper << 32)
_MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1)).map(str) | st.sampled_from(  # noqa: DTZ001
    ["infinity", "-infinity", "294276-12-31 23:59:59.999999"]
)
_DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "1", "null"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
).map(json.dumps)


def _near(kind: Kind, value: Any) -> list[Any]:
    """Give what a hash that leaves something out would take for the value."""
    if kind is Kind.NUMBER and str(value).lstrip("-")[0].isdigit():
        return [value, -value, value * 10000, value + 1]
    if kind is Kind.INTEGER:
        return [value, ~value, value ^ (1 << 32), value ^ 1, value ^ ((1 << 32) + 1), value ^ (1 << 62)]
    return [value]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize(
    ("kind", "sql_type", "values"),
    [
        (Kind.NUMBER, "numeric", _NUMBERS),
        (Kind.INTEGER, "bigint", _WHOLE),
        (Kind.INSTANT, "timestamptz", _MOMENTS),
        (Kind.TIMESTAMP, "timestamp", _MOMENTS),
        (Kind.JSON, "jsonb", _DOCUMENT),
        (Kind.FLOAT, "float8", st.floats(allow_subnormal=False)),
    ],
)
@settings(max_examples=30, deadline=None, suppress_health_check=[RELAXED])
@given(data=st.data())
def test_no_two_values_of_a_kind_have_one_digest(
    things: Pair, kind: Kind, sql_type: str, values: Any, data: st.DataObject
) -> None:
    """What differs by the server's own word, as text, has another digest; what does not has the same."""
    near = [near for value in data.draw(st.lists(values, max_size=6)) for near in _near(kind, value)]
    literals = [f"'{value}'::{sql_type}" for value in near] + [f"NULL::{sql_type}"]
    store = PostgresqlStore(things.primary, things.specs()[0], Method(7))
    prints = store.probe([Probe(kind, literal, None) for literal in literals], Method(7))
    with things.primary.snapshot() as connection:
        shown = "trim_scale({0})" if kind is Kind.NUMBER else "{0}"
        forms = ", ".join(shown.format(literal) + "::text" for literal in literals)
        texts = connection.exec_driver_sql(f"SELECT {forms}").one()
    for (one, there), (other, here) in itertools.combinations(zip(prints, texts, strict=True), 2):
        assert (one == other) == (there == here), (there, here)


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_digest_depends_on_values_and_not_on_what_may_be_null(things: Pair) -> None:
    """A NULL in a column that is said to have none would be left out of a sum."""
    rows = {(number, "a"): (*BASE[:number], None, *BASE[number + 1 :]) for number in range(len(BASE))}
    things.fill(rows | {(99, "a"): BASE}, {})
    spec = things.specs()[0]
    strict = replace(spec, columns=tuple(replace(column, nullable=False) for column in spec.columns))
    told, untold = (PostgresqlStore(things.primary, one, Method(7)) for one in (strict, spec))
    prints = told.prints(Span())
    assert prints == untold.prints(Span())
    assert len(set(prints.values())) == len(rows) + 1
    assert None not in prints.values()
    assert told.digest(Span()) == untold.digest(Span())


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_table_of_very_many_columns(pair: Pair) -> None:
    """The digest is as deep as there are columns, and flags are more than one number holds."""
    kinds = ("text", "numeric(9,2)", "boolean", "bigint", "timestamptz")
    columns = ", ".join(f"c{number} {kinds[number % len(kinds)]}" for number in range(1500))
    for side in (pair.primary, pair.shadow):
        run(side, f"CREATE TABLE things (id bigint PRIMARY KEY, {columns})")
        run(side, "INSERT INTO things (id, c1, c2) SELECT n, n, n % 2 = 0 FROM generate_series(1, 9) AS n")
    assert pair.differing() == []
    run(pair.shadow, "UPDATE things SET c1497 = false WHERE id = 3")
    run(pair.shadow, "UPDATE things SET c1496 = 0 WHERE id = 4")
    run(pair.shadow, "UPDATE things SET c1495 = '' WHERE id = 5")
    assert sorted(pair.differing()) == [(3,), (4,), (5,)]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize(("columns", "method"), [(1000, "native"), (1590, "portable")])
def test_as_many_whole_numbers_as_a_table_can_have(pair: Pair, columns: int, method: str) -> None:
    """Each is two calls deep, and a parser has a limit."""
    names = ", ".join(f"c{number} int" for number in range(columns))
    for side in (pair.primary, pair.shadow):
        run(side, f"CREATE TABLE things (id bigint PRIMARY KEY, {names})")
        run(side, "INSERT INTO things (id, c1) SELECT n, n FROM generate_series(1, 9) AS n")
    run(pair.shadow, f"UPDATE things SET c{columns - 1} = 0 WHERE id = 4")
    assert str(open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))[2]) == method
    assert pair.differing() == [(4,)]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_pattern_of_two_values_over_many_columns(pair: Pair) -> None:
    """The hash of an array multiplies by 31 and adds: of all columns in one, this pattern would cancel."""
    pattern = [1]
    for power in range(8):  # (x + 1)(x - 1)(x^2 - 1)(x^4 - 1) ... has coefficients of one size only
        pattern = [*(-one for one in pattern), *pattern] if power else [-1, 1]
    names = ", ".join(f"c{number} date" for number in range(len(pattern)))
    values = [
        ["2026-01-01" if (one > 0) == first else "2026-01-02" for one in pattern] for first in (True, False)
    ]
    for side, row in ((pair.primary, values[0]), (pair.shadow, values[1])):
        run(side, f"CREATE TABLE things (id bigint PRIMARY KEY, {names})")
        dates = ", ".join(f"date '{value}'" for value in row)
        run(side, f"INSERT INTO things SELECT n, {dates} FROM generate_series(1, 20) AS n")
    assert len(pair.differing()) == 20


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_composite_of_nulls_is_no_null(pair: Pair) -> None:
    for side, constraint in ((pair.primary, "NOT NULL"), (pair.shadow, "")):
        run(side, "CREATE TYPE pair AS (a int, b int)")
        run(side, f"CREATE TABLE things (id int PRIMARY KEY, value pair {constraint})")
        run(side, "INSERT INTO things VALUES (1, ROW(NULL, NULL)), (2, ROW(1, NULL))")
    for portable in (False, True):
        assert pair.differing(portable=portable) == []
    run(pair.shadow, "UPDATE things SET value = NULL WHERE id = 1")
    for portable in (False, True):
        assert pair.differing(portable=portable) == [(1,)]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_key_that_the_other_side_has_no_room_for_is_found(pair: Pair) -> None:
    """Numbers as keys, of another precision and scale on each side."""
    for side, kind in ((pair.primary, "numeric(6,2)"), (pair.shadow, "numeric(12,4)")):
        run(side, f"CREATE TABLE things (id {kind} PRIMARY KEY, value text)")
        run(side, "INSERT INTO things SELECT n, 'v' FROM generate_series(1, 20) AS n")
    run(pair.shadow, "INSERT INTO things VALUES (12345678.1234, 'x')")
    found = pair.differing(pace=Pace(first=1, least=1, most=1), leaf=1)
    assert ("12345678.1234",) in found


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize("kind", ["text", "bigint", "uuid"])
def test_edges_by_statistics_that_are_old(pair: Pair, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has changed since: edges are where the statistics say, and every row is in one chunk."""
    form = "CAST(lpad(to_hex(n), 32, '0') AS uuid)" if kind == "uuid" else f"CAST(n AS {kind})"
    for side in (pair.primary, pair.shadow):
        run(side, f"CREATE TABLE things (id {kind} PRIMARY KEY, value bigint)")
        run(side, f"INSERT INTO things SELECT {form}, n FROM generate_series(1000, 4000) AS n")
        run(side, "ANALYZE things")
        run(side, "DELETE FROM things WHERE value BETWEEN 1500 AND 2500 OR value % 10 = 0")
        run(side, f"INSERT INTO things SELECT {form}, n FROM generate_series(5000, 6000) AS n")
        run(side, f"INSERT INTO things SELECT {form}, n FROM generate_series(1, 500) AS n")
    run(pair.shadow, "DELETE FROM things WHERE value IN (1, 1001, 2501, 5999)")
    run(pair.primary, "DELETE FROM things WHERE value = 3333")
    run(pair.shadow, "UPDATE things SET value = -1 WHERE value IN (400, 3999, 6000)")
    looked: list[Span] = []
    boundary = PostgresqlStore.boundary

    def counted(store: PostgresqlStore, span: Span, rows: int) -> Any:
        looked.append(span)
        return boundary(store, span, rows)

    monkeypatch.setattr(PostgresqlStore, "boundary", counted)
    with pair.primary.engine.connect() as connection:
        query = f"SELECT {form} FROM unnest(ARRAY[1, 400, 1001, 2501, 3333, 3999, 5999, 6000]) AS n"
        keys = connection.execute(text(query)).scalars().all()
    wanted = {(key if kind == "bigint" else str(key),) for key in keys}
    for portable in (False, True):
        looked.clear()
        found = pair.differing(pace=Pace(first=200, least=200, most=200), leaf=5000, portable=portable)
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert 1 <= len(looked) <= 10  # the tail, which has grown


def test_empty_and_one_side_empty(things: Pair) -> None:
    assert things.differing() == []
    table = {(number, "a"): BASE for number in range(60)}
    for here, there in ((table, {}), ({}, table)):
        things.fill(here, there)
        found = things.differing(leaf=7, pace=Pace(first=20, least=1))
        assert sorted(found) == sorted(table)


def test_an_edge_that_only_one_side_has(things: Pair) -> None:
    table = {(number, "a"): BASE for number in range(40)}
    for size in (7, 10):
        edges = {(number, "a") for number in range(size - 1, 40, size)}
        other = {key: row for key, row in table.items() if key not in edges}
        for here, there in ((table, other), (other, table)):
            things.fill(here, there)
            found = things.differing(leaf=3, pace=Pace(first=size, least=size, most=size))
            assert sorted(found) == sorted(edges)


def test_rows_that_come_and_go_between_the_digests(things: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be found or not, for the caller to judge; what differs all the time is found, and once."""
    table = {(number, "a"): BASE for number in range(60)}
    lasting = {(9, "a"), (30, "a"), (59, "a")}
    coming = [(number, "b") for number in (0, 9, 19, 20, 45, 59)]
    things.fill(table, {key: row for key, row in table.items() if key not in lasting})
    turns = itertools.cycle([True, False, False])
    for store in (PostgresqlStore, SqliteStore):
        digest = store.digest

        def between(
            looked: Any,
            span: Span,
            digest: Callable[[Any, Span], Digest] = digest,
            side: Side = things.primary,
        ) -> Digest:
            if looked._side is side:
                here = next(turns)
                for key in coming:
                    one = dict(zip(NAMES, (*key, *BASE), strict=True))
                    for other in (things.primary, things.shadow):
                        run(other, "DELETE FROM things WHERE part = :part AND name = :name", **one)
                        if here:
                            run(other, str(insertion(other)), **one)
            return digest(looked, span)

        monkeypatch.setattr(store, "digest", between)
    found = things.differing(leaf=3, pace=Pace(first=20, least=20, most=20))
    assert len(found) == len(set(found))
    assert lasting <= set(found) <= lasting | set(coming)


def test_names_are_quoted_and_keys_may_be_in_any_order(pair: Pair) -> None:
    name = "odd %s"
    columns = '"100%s" {text}, "a ""b"":x" {text} NOT NULL, n {int} NOT NULL'
    for side in (pair.primary, pair.shadow):
        types = TYPES["postgresql" if side.postgresql else "sqlite"]
        definition = f'CREATE TABLE "{name}" ({columns.format_map(types)}, PRIMARY KEY (n, "a ""b"":x"))'
        with side.engine.begin() as connection:
            connection.exec_driver_sql(definition.replace("%", "%%") if side.postgresql else definition)
    here, there = describe_pair(pair.primary, pair.shadow, name)
    assert [column.name for column in here.key] == ["n", 'a "b":x']
    for number in range(5):
        for side in (pair.primary, pair.shadow):
            run(side, f"INSERT INTO \"{name}\" VALUES ('%', :key, {number})", key=f"k{number}")
    run(pair.shadow, f'DELETE FROM "{name}" WHERE n = 3')
    found = differing_keys((pair.primary, here), (pair.shadow, there), leaf=1, pace=Pace(first=2, least=1))
    assert [key for keys in found for key in keys] == [(3, "k3")]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize(
    ("sql_type", "here", "there", "equal"),
    [
        ("numeric", "1.0", "1.00", False),
        ("text[]", "{NULL}", '{"NULL"}', False),
        ("text[]", "{a,b}", '{"a,b"}', False),
        ("int[]", "{1}", "[0:0]={1}", False),
        ("timestamptz[]", '{"2026-01-02 00:00+00"}', '{"2026-01-02 02:00+02"}', True),
        ("float8[]", "{0}", "{-0}", False),
        ("json", '{"a":1}', '{"a": 1}', False),
        ("point", "(0,0)", "(-0,0)", False),
        ("xml", "<a/>", "<a></a>", False),
        ("interval", "1 day", "24 hours", False),
        ("inet", "10.0.0.0/8", "10.0.0.0/9", False),
        ("date", "2026-01-02", "2026-01-03", False),
        ("timestamp", "2026-01-02", "2026-01-02 00:00:00.000001", False),
        ("timestamp", "infinity", "-infinity", False),
        ("timestamptz", "infinity", "infinity", True),
        ("real", "0.1", "0.100000001", True),
        ("real", "0.1", "0.10000001", False),
        ("char(4)", "a", "a ", True),
        ("numeric(10,2)", "NaN", "NaN", True),
        ("uuid", "0189abcd-0000-7000-8000-00000000000f", "0189ABCD-0000-7000-8000-00000000000F", True),
    ],
)
def test_types_of_postgresql(pair: Pair, sql_type: str, here: str, there: str, equal: bool) -> None:
    for side, value in ((pair.primary, here), (pair.shadow, there)):
        run(side, f"CREATE TABLE things (id int PRIMARY KEY, value {sql_type})")
        run(side, f"INSERT INTO things VALUES (1, CAST(:value AS {sql_type})), (2, NULL)", value=value)
    for portable in (False, True):
        assert pair.differing(portable=portable) == ([] if equal else [(1,)])


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize(
    "sql_type", ["numeric", "uuid", "timestamptz", "date", "int[]", "bytea", "varchar(9)"]
)
def test_keys_of_postgresql(pair: Pair, sql_type: str) -> None:
    samples = {
        "numeric": ["-1.50", "2", "10"],
        "uuid": [f"0189abcd-0000-7000-8000-00000000000{n}" for n in "19f"],
        "timestamptz": ["2026-01-02 03:04:05.678901+00", "1999-01-01+00", "infinity"],
        "date": ["2026-01-02", "1999-01-01", "0044-03-15 BC"],
        "int[]": ["{}", "{1,2}", "{1}"],
        "bytea": [r"\x", r"\x00", r"\xff"],
        "varchar(9)": ["", "a", "B"],
    }[sql_type]
    for side in (pair.primary, pair.shadow):
        run(side, f"CREATE TABLE things (id {sql_type}, value int, PRIMARY KEY (id, value))")
        for value in samples:
            run(side, f"INSERT INTO things VALUES (CAST(:value AS {sql_type}), 1)", value=value)
    assert pair.differing(leaf=1, pace=Pace(first=1, least=1)) == []
    run(pair.shadow, f"DELETE FROM things WHERE id = CAST(:value AS {sql_type})", value=samples[1])
    (key,) = pair.differing(leaf=1, pace=Pace(first=1, least=1))
    here, _, _ = open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))
    assert list(here.prints_of([key])) == [key]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
@pytest.mark.parametrize("portable", [False, True])
def test_jsonb_is_digested_as_json_built_anew_is(pair: Pair, portable: bool) -> None:
    documents = ["null", "1.0", '{"bb": [1e2, -0.0], "c": "\\u00e9/", "a": {}}', None]
    for side, sql_type in ((pair.primary, "jsonb"), (pair.shadow, "json")):
        run(side, f"CREATE TABLE things (id int PRIMARY KEY, value {sql_type})")
        for number, document in enumerate(documents):
            statement = f"INSERT INTO things VALUES ({number}, CAST(:document AS {sql_type}))"
            run(side, statement, document=document)
    assert [spec.columns[0].sql_type for spec in pair.specs()] == ["jsonb", "json"]
    assert pair.differing(portable=portable) == []
    run(pair.shadow, "UPDATE things SET value = '1' WHERE id = 1")
    assert pair.differing(portable=portable) == [(1,)]


@pytest.mark.parametrize("pair", [MIXED], indirect=True)
def test_arrays_are_json_on_sqlite(pair: Pair) -> None:
    run(pair.primary, "CREATE TABLE things (id int PRIMARY KEY, tags text[], more json)")
    run(pair.shadow, "CREATE TABLE things (id INTEGER PRIMARY KEY, tags JSON, more JSON)")
    run(pair.primary, "INSERT INTO things VALUES (1, '{a,NULL}', '{\"x\"\\:1}'), (2, '{a}', '1')")
    run(pair.shadow, "INSERT INTO things VALUES (1, '[\"a\",null]', '{\"x\": 1}'), (2, '[\"b\"]', '1')")
    assert pair.differing() == [(2,)]


@pytest.mark.postgres
def test_the_traps_of_a_servers_own_hash_fail_the_self_test(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With bare values hashed, probes collide: the portable digest is used instead."""
    from shadowfault_api.verifier.stores import postgresql_digest as broken  # noqa: PLC0415

    with opened("postgresql", tmp_path, postgres_server) as pair:
        pair.create()
        tables = list(zip((pair.primary, pair.shadow), pair.specs(), strict=True))
        assert str(open_stores(*tables)[2]) == "native"
        bare = [
            ("_SENT", {**broken._SENT, Kind.FLOAT: "{0}"}),
            ("_SENT", {**broken._SENT, Kind.INTEGER: "{0}"}),
            ("_SENT", {**broken._SENT, Kind.JSON: "{0}"}),
            ("_SENT", {**broken._SENT, Kind.DECIMAL: "{0}"}),
        ]
        for name, value in bare:
            with monkeypatch.context() as patch:
                patch.setattr(broken, name, value)
                assert str(open_stores(*tables)[2]) == "portable"


@pytest.mark.postgres
def test_servers_that_digest_unlike_are_not_compared(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("postgresql", tmp_path, postgres_server) as pair:
        pair.create()
        probe = PostgresqlStore.probe

        def unlike(store: PostgresqlStore, probes: Any, method: Method) -> list[int]:
            prints = probe(store, probes, method)
            return [value + 1 for value in prints] if store._side.name == "shadow" else prints

        monkeypatch.setattr(PostgresqlStore, "probe", unlike)
        with pytest.raises(UnprovenError, match="do not digest"):
            pair.differing()


@pytest.mark.postgres
def test_every_probe_is_alike_on_postgresql_and_sqlite(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with opened("mixed", tmp_path, postgres_server) as pair:
        pair.create()
        here, there, _ = open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))
        for probe in probes_of(frozenset(Kind)):
            assert here.probe([probe], Method()) == there.probe([probe], Method()), probe


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
def test_a_key_that_is_null_is_refused(pair: Pair) -> None:
    for side in (pair.primary, pair.shadow):
        run(side, "CREATE TABLE things (id TEXT PRIMARY KEY, value TEXT)")
    run(pair.primary, "INSERT INTO things VALUES (NULL, 'lost')")
    with pytest.raises(SchemaError, match="NULL in their key"):
        pair.differing()


def test_tables_that_are_not_alike_are_refused(pair: Pair) -> None:
    for side, columns in ((pair.primary, "id int PRIMARY KEY, a text"), (pair.shadow, "id int PRIMARY KEY")):
        run(side, f"CREATE TABLE things ({columns})")
        run(side, "CREATE TABLE keyless (id int)")
    with pytest.raises(SchemaError, match="not the same columns and key on both sides: a"):
        pair.specs()
    with pytest.raises(SchemaError, match="no primary key"):
        describe(pair.primary, "keyless")
    with pytest.raises(SchemaError, match="no table nothing"):
        describe(pair.shadow, "nothing")


def test_rows_that_say_they_changed(things: Pair) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    late = (*BASE[:3], "2026-06-01 00:00:00+00:00", *BASE[4:])
    table = {(number, "a"): late if number % 2 else BASE for number in range(10)}
    things.fill(table, table)
    specs = [replace(spec, changed_at="at") for spec in things.specs()]
    stores = open_stores(*zip((things.primary, things.shadow), specs, strict=True))[:2]
    since = datetime(2026, 5, 1, tzinfo=UTC)
    for store in stores:
        window = Window(since)
        first = store.changed(window, None, 3)
        rows = first + store.changed(window, first[-1], 3)
        assert [row.key for row in rows] == [(number, "a") for number in (1, 3, 5, 7, 9)]
        assert store.changed(window, rows[-1], 3) == []
        assert store.changed(window, None, 3, dead=True) == []
        assert store.digest_changed(window).rows == 5
        assert store.digest_changed(Window(since, datetime(2026, 5, 20, tzinfo=UTC))).rows == 0
        assert store.estimate() == 10
        assert store.boundary(Span((3, "a"), (6, "a")), 3) == (6, "a")
        assert store.boundary(Span((3, "a"), (6, "a")), 4) is None
