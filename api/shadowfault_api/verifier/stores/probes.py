"""Constants of every kind that servers are likely to digest unlike, or to take for equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Collection


class Probe(NamedTuple):
    """A value: as an expression of PostgreSQL, and as SQLite's driver returns it."""

    kind: Kind
    sql: str
    raw: object


# Within a kind no two are equal: a digest that cannot tell them apart is not used.
_PROBES: Final = (
    Probe(Kind.TEXT, "NULL::text", None),
    Probe(Kind.TEXT, "''::text", ""),
    Probe(Kind.TEXT, "'<null>'::text", "<null>"),
    Probe(Kind.TEXT, "'-'::text", "-"),
    Probe(Kind.TEXT, "'x'::text", "x"),
    Probe(Kind.TEXT, "'X'::text", "X"),
    Probe(Kind.TEXT, "'x '::text", "x "),
    Probe(Kind.TEXT, r"U&'\00e9\+01F600'::text", "\u00e9\U0001f600"),
    Probe(Kind.TEXT, r"U&'e\0301'::text", "e\u0301"),
    Probe(Kind.INTEGER, "0::bigint", 0),
    Probe(Kind.INTEGER, "1::bigint", 1),
    Probe(Kind.INTEGER, "'-1'::bigint", -1),
    # PostgreSQL folds a bigint into 32 bits before it hashes: this one would be 1.
    Probe(Kind.INTEGER, "4294967296::bigint", 4294967296),
    Probe(Kind.INTEGER, "9223372036854775807::bigint", 9223372036854775807),
    Probe(Kind.NUMBER, "0.00::numeric", "0.00"),
    Probe(Kind.NUMBER, "1.00::numeric", "1.0"),
    Probe(Kind.NUMBER, "10::numeric", 10),
    Probe(Kind.NUMBER, "-10000.010::numeric", "-10000.01"),
    # PostgreSQL hashes a number without its sign. An infinity would be refused before PostgreSQL 14.
    Probe(Kind.NUMBER, "10000.01::numeric", "10000.010"),
    Probe(Kind.NUMBER, "'NaN'::numeric", "NaN"),
    Probe(Kind.NUMBER, "123456789012345678901234567890.5::numeric", "123456789012345678901234567890.50"),
    Probe(Kind.DECIMAL, "1.0::numeric", "1.0"),
    Probe(Kind.DECIMAL, "1.00::numeric", "1.00"),
    Probe(Kind.DECIMAL, "0.0000000001::numeric", "1E-10"),
    Probe(Kind.FLOAT, "'0'::float8", 0.0),
    Probe(Kind.FLOAT, "'-0'::float8", -0.0),
    Probe(Kind.FLOAT, "0.1::float8", 0.1),
    Probe(Kind.FLOAT, "'Infinity'::float8", float("inf")),
    Probe(Kind.BOOLEAN, "true", 1),
    Probe(Kind.BOOLEAN, "false", 0),
    Probe(Kind.BYTES, r"'\x'::bytea", b""),
    Probe(Kind.BYTES, r"'\x00ff'::bytea", b"\x00\xff"),
    Probe(Kind.INSTANT, "'2026-01-02 03:04:05.678901+00'::timestamptz", "2026-01-02 03:04:05.678901"),
    Probe(Kind.INSTANT, "'2026-01-02 03:04:05.678901+02'::timestamptz", "2026-01-02T01:04:05.678901+00:00"),
    Probe(Kind.INSTANT, "'1999-12-31 23:59:59.999999+00'::timestamptz", "1999-12-31 23:59:59.999999"),
    Probe(Kind.TIMESTAMP, "'2026-01-02 03:04:05.678901'::timestamp", "2026-01-02 03:04:05.678901"),
    Probe(Kind.TIMESTAMP, "'1970-01-01 00:00:00'::timestamp", "1970-01-01 00:00:00"),
    Probe(Kind.DATE, "'2026-01-02'::date", "2026-01-02"),
    Probe(Kind.DATE, "'0001-12-31'::date", "0001-12-31"),
    Probe(Kind.UUID, "'0189ABCD-0000-7000-8000-00000000000f'::uuid", "0189abcd-0000-7000-8000-00000000000F"),
    Probe(Kind.JSON, "'1'::jsonb", "1"),
    Probe(Kind.JSON, "'1.0'::jsonb", "1.0"),
    Probe(Kind.JSON, "'null'::jsonb", "null"),
    Probe(Kind.JSON, "NULL::jsonb", None),
    Probe(
        Kind.JSON,
        r"""'{"bb": [1e2, -0.0, true], "c": "\u00e9\u0001\/", "a": {"a": {}}}'::jsonb""",
        r'{"c":"\u00e9\u0001/","a":{"a":{}},"bb":[100,0.0,true]}',
    ),
    Probe(Kind.LITERAL, "'{1,NULL}'::int[]", "{1,NULL}"),
    Probe(Kind.LITERAL, """'{"NULL"}'::text[]""", '{"NULL"}'),
    Probe(Kind.LITERAL, "'(1,-0)'::point", "(1,-0)"),
    Probe(Kind.LITERAL, "ARRAY['2026-01-02 03:04:05+00'::timestamptz]", '{"2026-01-02 03:04:05+00"}'),
    Probe(Kind.LITERAL, "ARRAY[0.1::float8]", "{0.1}"),
)


def probes_of(kinds: Collection[Kind]) -> list[Probe]:
    """Give the probes of the kinds a table has."""
    return [probe for probe in _PROBES if probe.kind in kinds]
