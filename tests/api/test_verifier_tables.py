"""Tables of every kind of column, on every pair of servers: never a difference missed, never one made up."""

from __future__ import annotations

import itertools
import secrets
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.describe import describe, describe_pair
from shadowfault_api.verifier.differences import differing_keys
from shadowfault_api.verifier.errors import SchemaError
from shadowfault_api.verifier.pace import Pace
from shadowfault_api.verifier.stores import Digest, Span, Window
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.stores.postgresql import PostgresqlStore
from shadowfault_api.verifier.stores.sqlite import SqliteStore
from shadowfault_testing.tables import BASE, NAMES, TYPES, Pair, Table, insertion, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from shadowfault_api.verifier.side import Side


POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)
MIXED = pytest.param("mixed", marks=pytest.mark.postgres)
RELAXED = HealthCheck.function_scoped_fixture

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
    with pytest.raises(SchemaError, match="not the same columns on both sides: a"):
        pair.specs()
    for side, key in ((pair.primary, "a"), (pair.shadow, "b")):
        run(side, f"CREATE TABLE keyed (a int NOT NULL, b int NOT NULL, PRIMARY KEY ({key}))")
    with pytest.raises(SchemaError, match=r"not the same primary key on both sides: \(a\) and \(b\)"):
        describe_pair(pair.primary, pair.shadow, "keyed")
    with pytest.raises(SchemaError, match="no primary key"):
        describe(pair.primary, "keyless")
    with pytest.raises(SchemaError, match="no table nothing"):
        describe(pair.shadow, "nothing")


def test_a_key_in_another_order_is_the_same_key(pair: Pair) -> None:
    for side, key in ((pair.primary, "a, b"), (pair.shadow, "b, a")):
        run(side, f"CREATE TABLE things (a int NOT NULL, b int NOT NULL, c text, PRIMARY KEY ({key}))")
    run(pair.primary, "INSERT INTO things VALUES (1, 2, 'x'), (3, 3, 'y'), (5, 4, 'x')")
    run(pair.shadow, "INSERT INTO things VALUES (2, 1, 'x'), (3, 3, 'y'), (5, 4, 'x')")
    assert sorted(pair.differing()) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_sides_that_sort_a_key_differently_are_compared_all_the_same(pair: Pair) -> None:
    """By the labels of an enum, or the collation of a domain: edges must not run in a circle."""
    for side, labels, collation in (
        (pair.primary, "'a', 'b', 'c'", "C"),
        (pair.shadow, "'c', 'a', 'b'", "und-x-icu"),
    ):
        run(side, f"CREATE TYPE label AS ENUM ({labels})")
        run(side, f'CREATE DOMAIN word AS text COLLATE "{collation}"')
        run(side, "CREATE TABLE things (id label, w word, c int, d text, PRIMARY KEY (id, w) INCLUDE (c))")
        run(side, "INSERT INTO things VALUES ('a', 'B'), ('a', 'a'), ('b', 'Z'), ('c', 'é'), ('c', 'f')")
    assert pair.differing(pace=Pace(first=1, least=1, most=1), leaf=1) == []
    run(pair.shadow, "UPDATE things SET d = 'other' WHERE w = 'Z'")
    run(pair.shadow, "DELETE FROM things WHERE w = 'f'")
    found = pair.differing(pace=Pace(first=1, least=1, most=1), leaf=1)
    assert sorted(found) == [("b", "Z"), ("c", "f")]


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_rows_that_a_policy_hides_are_no_difference_and_no_equality(pair: Pair) -> None:
    for side in (pair.primary, pair.shadow):
        run(side, "CREATE TABLE things (id int PRIMARY KEY)")
        run(side, "INSERT INTO things VALUES (1), (2)")
    run(pair.shadow, "ALTER TABLE things ENABLE ROW LEVEL SECURITY")
    run(pair.shadow, "ALTER TABLE things FORCE ROW LEVEL SECURITY")
    run(pair.shadow, "CREATE POLICY hidden ON things USING (id = 1)")
    reader = f"reader_{secrets.token_hex(4)}"
    run(pair.shadow, f"CREATE ROLE {reader} LOGIN PASSWORD '{reader}'")
    run(pair.shadow, f"GRANT SELECT ON things TO {reader}")
    url = pair.shadow.engine.url.set(username=reader, password=reader)
    engine = create_sync_engine(url)
    try:
        with pytest.raises(SchemaError, match="not all of their rows"):
            Pair(pair.primary, replace(pair.shadow, engine=engine)).differing()
    finally:
        engine.dispose()
        run(pair.shadow, f"DROP OWNED BY {reader}")
        run(pair.shadow, f"DROP ROLE {reader}")


def test_rows_that_say_they_changed(things: Pair) -> None:
    from datetime import UTC  # noqa: PLC0415

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
