"""Column types that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator, TypeEngine

PRICE_PRECISION: Final = 12
PRICE_SCALE: Final = 2
_CENT: Final = Decimal(1).scaleb(-PRICE_SCALE)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant: `timestamptz` on PostgreSQL, naive UTC text on SQLite, always aware UTC in Python."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored: give it a time zone")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def exact_price(value: Decimal) -> Decimal:
    """Write a price with two decimals.

    Raises:
        ValueError: it has more.
    """
    exact = value.quantize(_CENT)
    if exact != value:
        raise ValueError(f"a price has at most {PRICE_SCALE} decimals")
    return exact


class ExactPrice(TypeDecorator[Decimal]):
    """`numeric(12,2)` on PostgreSQL; on SQLite text with two decimals, for its NUMERIC is a binary float.

    Binding rounds nothing: a value with more than two decimals is an error.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(Numeric(PRICE_PRECISION, PRICE_SCALE))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Decimal | str | None:
        if value is None:
            return None
        exact = exact_price(value)
        return str(exact) if dialect.name == "sqlite" else exact

    def process_result_value(self, value: Decimal | str | None, dialect: Dialect) -> Decimal | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else Decimal(value).quantize(_CENT)


def uuid_text() -> TypeEngine[str]:
    """A UUID in its 36 characters.

    Sorted by code point on PostgreSQL too, whatever the database's locale: the order SQLite has, and the
    one in which the verifier reads both sides by the primary key's own index.
    """
    return String(36).with_variant(String(36, collation="C"), "postgresql")


def json_document() -> TypeEngine[Any]:
    """JSON, stored as `jsonb` where there is one."""
    return JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def row_id() -> TypeEngine[int]:
    """A growing row number: 64 bits on both (SQLite's rowid alias must be spelt INTEGER)."""
    return BigInteger().with_variant(Integer(), "sqlite")
