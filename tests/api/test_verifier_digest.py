"""Digests of rows: what differs in anything has another one, alone and in a sum; and how they are chosen."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowfault_api.verifier.errors import UnprovenError
from shadowfault_api.verifier.stores import Method, Span
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.stores.postgresql import PostgresqlStore
from shadowfault_api.verifier.stores.probes import Probe, probes_of
from shadowfault_api.verifier.tables import Kind
from shadowfault_testing.api import eventually
from shadowfault_testing.tables import BASE, Pair, opened, run

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.postgres import PostgresServer

POSTGRES = pytest.param("postgresql", marks=pytest.mark.postgres)
MIXED = pytest.param("mixed", marks=pytest.mark.postgres)
RELAXED = HealthCheck.function_scoped_fixture


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


@pytest.mark.parametrize("pair", [POSTGRES], indirect=True)
def test_a_part_of_a_table_is_read_by_its_index_and_the_whole_in_one_go(pair: Pair) -> None:
    """Where a part is large, the server's costs would have it read the whole table for each of them."""
    for side in (pair.primary, pair.shadow):
        run(side, 'CREATE TABLE things (id text COLLATE "C" PRIMARY KEY, a text)')
        run(side, "INSERT INTO things SELECT lpad(n::text, 6, '0'), 'a' FROM generate_series(1, 3000) AS n")
        run(side, "ANALYZE things")
    store, _, _ = open_stores(*zip((pair.primary, pair.shadow), pair.specs(), strict=True))

    def scans() -> tuple[int, int]:
        # What a session counted is told by the time that it is over.
        pair.primary.engine.dispose()
        with pair.primary.engine.connect() as connection:
            query = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'things'"
            return tuple(connection.exec_driver_sql(query).one())

    before = scans()
    assert store.digest(Span(("001000",), None)).rows == 2000
    by_index = eventually("the count of a scan by index", lambda: scans() if scans()[1] > before[1] else None)
    assert by_index == (before[0], before[1] + 1)
    assert store.digest(Span()).rows == 3000
    whole = eventually("the count of a scan", lambda: scans() if scans()[0] > before[0] else None)
    assert whole == (before[0] + 1, by_index[1])
