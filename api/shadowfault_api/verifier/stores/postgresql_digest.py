"""A row's digest as an expression of PostgreSQL, and the text forms of its values. Pure.

The **native** digest is a chain: each hash has the one before it as its seed, and the key's is the last. So a
row's digest is a number unrelated to all others, and a sum of them tells of each. Where PostgreSQL's own hash
of a type leaves something out, another is taken, each thing *measured* on PostgreSQL 15:

- the hash of a record, and a sum of hashes, is a linear combination: two rows that swap a value had the same
  sum in most cases. Hence the chain; an array, whose hash is one too, is hashed only within a row;
- `numeric` is hashed without its sign, and NaN and both infinities as nothing at all: its text is hashed;
- jsonb 1 and 1.0 are alike, so are arrays that swap members 32 places apart: its text is hashed;
- `bigint` is folded into 32 bits: 1 and 4294967296 are alike, but not where the upper half is hashed as well;
- timestamps are folded too, -0 and 0 are alike: they go through a `send` function;
- a hash of NULL is NULL, and a sum leaves that out: NULL is a flag beside a value that stands for it.

The **portable** digest is MD5 over the text forms, each framed by its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Value(NamedTuple):
    """An expression of a kind; `nullable` may say False of what is hardly ever NULL: it is cheaper then."""

    kind: Kind
    sql: str
    nullable: bool = True


_FORMS: Final[Mapping[Kind, str]] = {
    Kind.NUMBER: "trim_scale({0}::numeric)::text",
    Kind.FLOAT: "encode(float8send({0}::float8), 'hex')",
    Kind.BOOLEAN: "{0}::int::text",
    Kind.BYTES: "encode({0}, 'hex')",
    Kind.INSTANT: "encode(timestamptz_send({0}), 'hex')",
    Kind.TIMESTAMP: "encode(timestamp_send({0}), 'hex')",
    Kind.JSON: "to_jsonb({0})::text",
}
_ANY_FORM: Final = "{0}::text"
# Hashed as bytes within an array, which takes NULL for a value of its own.
_SENT: Final[Mapping[Kind, str]] = {
    Kind.FLOAT: "float8send({0}::float8)",
    Kind.BYTES: "{0}",
    Kind.INSTANT: "timestamptz_send({0})",
    Kind.TIMESTAMP: "timestamp_send({0})",
    Kind.DATE: "date_send({0})",
    Kind.UUID: "uuid_send({0})",
}
# So many in one number, which is hashed unfolded.
_FLAGS_AT_ONCE: Final = 31
# Of many values in one array, patterns of two values would cancel: its hash multiplies by 31 and adds.
_SENT_AT_ONCE: Final = 4


def form(kind: Kind, value: str) -> str:
    """Give the canonical text form of a value; see `canonical`."""
    return _FORMS.get(kind, _ANY_FORM).format(value)


def portable_digest(values: Iterable[Value]) -> str:
    """Give the expression of a digest that other servers can make too, a bigint."""
    forms = [form(value.kind, value.sql) for value in values]
    framed = " || ".join(f"coalesce(octet_length({one}) || ':' || {one}, '-')" for one in forms)
    return f"('x' || substr(md5(convert_to({framed}, 'UTF8')), 1, 16))::bit(64)::bigint"


def native_digest(key: Sequence[Value], columns: Sequence[Value], seed: int) -> str:
    """Give the expression of a digest by the server's own hash functions, a bigint that is never NULL.

    It depends on the row's values alone, and not on what is said to be nullable.
    """
    chain = _chain(key, columns, seed)
    if all(value.nullable for value in (*key, *columns)):
        return chain
    return f"coalesce({chain}, {_chain(_anything(key), _anything(columns), seed)})"


def _anything(values: Sequence[Value]) -> Sequence[Value]:
    return [value._replace(nullable=True) for value in values]


def _chain(key: Sequence[Value], columns: Sequence[Value], seed: int) -> str:
    digest = str(seed)
    sent = [_SENT[value.kind].format(value.sql) for value in columns if value.kind in _SENT]
    for start in range(0, len(sent), _SENT_AT_ONCE):
        digest = _array(sent[start : start + _SENT_AT_ONCE], digest)
    flags = [flag for value in (*key, *columns) for flag in _flags(value)]
    for start in range(0, len(flags), _FLAGS_AT_ONCE):
        digest = f"hashint4extended({_number(flags[start : start + _FLAGS_AT_ONCE])}, {digest})"
    for value in columns:
        if value.kind not in _SENT:
            digest = _hashed(value, digest)
    # Each by itself: of an array of two, rows that swap what they hold in a ring of four would not be told.
    for value in key:
        digest = _hashed(value, digest)
    return digest


def _array(sent: Sequence[str], seed: str) -> str:
    # Only members that are not NULL are hashed under the seed, and of all the others it would be lost.
    return f"hash_array_extended(ARRAY[''::bytea, {', '.join(sent)}], {seed})"


def _hashed(value: Value, seed: str) -> str:
    if value.kind is Kind.BOOLEAN:
        return seed  # a flag says it all
    if value.kind in _SENT:
        return _array([_SENT[value.kind].format(value.sql)], seed)
    if value.kind is Kind.INTEGER:
        number = _filled(f"{value.sql}::bigint", "0", value)
        return f"hashint8extended({number}, hashint8extended({number} >> 32, {seed}))"
    return f"""hashtextextended({_filled(form(value.kind, value.sql), "''", value)} COLLATE "C", {seed})"""


def _filled(expression: str, instead: str, value: Value) -> str:
    return f"coalesce({expression}, {instead})" if value.nullable else expression


def _flags(value: Value) -> Iterable[str | None]:
    """Give the conditions that are part of a digest, each at its place: None is one that is always false."""
    if value.kind not in _SENT:
        # Of others a NULL that is not expected makes the whole digest NULL, which does not go unnoticed. Not
        # IS NULL: that is true of a composite value all of whose fields are.
        asked = value.nullable or value.kind is Kind.BOOLEAN
        yield f"{value.sql} IS NOT DISTINCT FROM NULL" if asked else None
    if value.kind is Kind.BOOLEAN:
        yield f"{value.sql} IS TRUE"


def _number(flags: Sequence[str | None]) -> str:
    return (
        " + ".join(
            f"CASE WHEN {flag} THEN {1 << place} ELSE 0 END" for place, flag in enumerate(flags) if flag
        )
        or "0"
    )
