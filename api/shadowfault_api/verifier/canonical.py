"""The one text form of a value, by kind: equal values have the same, others never do. Pure.

`stores.postgresql` has the same forms as SQL; the self-test at the start of a run holds the two together.
SQLite stores what it is given whatever the column says: what is no value of the column's kind gets a form
of its own, so that it is found different and stops nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from shadowfault_api.verifier.tables import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")
# PostgreSQL's numeric has up to so many digits before its point, and 16 383 after it.
_LARGEST_EXPONENT: Final = 131_072
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND: Final = timedelta(microseconds=1)
WRAP: Final = 2**64


def canonical(kind: Kind, value: object) -> str | None:
    """Give the text form of a value as SQLite's driver returns it; None is NULL."""
    if value is None:
        return None
    form = _FORMS[kind](value)
    return f"\0{type(value).__name__}:{value!r}" if form is None else form


def row_print(forms: Iterable[str | None]) -> int:
    """Digest one row: MD5 over its forms, each framed by its length in bytes; the first 64 bits, signed."""
    digest = hashlib.md5(usedforsecurity=False)
    for form in forms:
        if form is None:
            digest.update(b"-")
        else:
            data = form.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(data), data))
    return int.from_bytes(digest.digest()[:8], "big", signed=True)


def json_text(document: str | bytes) -> str | None:
    """Write a JSON document as PostgreSQL's `jsonb` prints it; None where it is not JSON."""
    try:
        parsed = json.loads(document, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
        return _json(parsed)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _json(value: object) -> str:
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: (len(member[0].encode()), member[0].encode()))
        return "{" + ", ".join(f"{_string(name)}: {_json(item)}" for name, item in members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, Decimal):
        return _plain(value)
    return json.dumps(value, ensure_ascii=False)


def _string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(number: Decimal) -> str:
    """Write all digits, without an exponent; a decimal zero has no sign.

    Raises:
        ValueError: no column of PostgreSQL could hold it, and its digits would fill the memory.
    """
    if abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError("out of range")
    written = format(number, "f")
    return written.removeprefix("-") if number == 0 else written


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> str | None:
    return str(value) if isinstance(value, int) else None


def _decimal(value: object) -> str | None:
    written = repr(value) if isinstance(value, float) else str(value)
    if written in {"NaN", "Infinity", "-Infinity"}:
        return written
    if not isinstance(value, (int, float, str)) or not _NUMBER.fullmatch(written):
        return None
    try:
        return _plain(Decimal(written))
    except ValueError:
        return None


def _number(value: object) -> str | None:
    written = _decimal(value)
    return written.rstrip("0").rstrip(".") if written is not None and "." in written else written


def _float(value: object) -> str | None:
    return struct.pack(">d", value).hex() if isinstance(value, (int, float)) else None


def _boolean(value: object) -> str | None:
    return str(int(value)) if isinstance(value, int) and value in {0, 1} else None


def _bytes(value: object) -> str | None:
    return value.hex() if isinstance(value, bytes) else None


def _moment(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _instant(value: object) -> str | None:
    moment = _moment(value)
    if moment is None:
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return struct.pack(">q", (aware - _EPOCH) // _MICROSECOND).hex()


def _timestamp(value: object) -> str | None:
    moment = _moment(value)
    return None if moment is None or moment.tzinfo is not None else _instant(value)


def _uuid(value: object) -> str | None:
    return value.lower() if isinstance(value, str) else None


def _document(value: Any) -> str | None:  # noqa: ANN401 - whatever SQLite holds
    return json_text(str(value) if isinstance(value, (int, float)) else value)


_FORMS: Final[Mapping[Kind, Callable[[object], str | None]]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.DECIMAL: _decimal,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _boolean,
    Kind.BYTES: _bytes,
    Kind.INSTANT: _instant,
    Kind.TIMESTAMP: _timestamp,
    Kind.DATE: _text,
    Kind.UUID: _uuid,
    Kind.JSON: _document,
    Kind.LITERAL: lambda value: value if isinstance(value, str) else None,
}
