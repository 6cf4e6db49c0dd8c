"""Two migrated databases, and hands to put things into them behind the service's back."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import Engine, delete, insert, select, update

from shadowfault_api.entities import LISTING
from shadowfault_api.evidence import DetailValue, EventType, Subject, new_record
from shadowfault_api.store.migrate import Database, migrate
from shadowfault_api.store.schema import (
    discrepancies,
    evidence_records,
    job_runs,
    listings,
    outbox,
    shadow_listings,
)
from shadowfault_api.store.urls import READ_ONLY_OPTION, create_sync_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Row, Table

    from shadowfault_testing.databases import DatabasePair

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


class Stores:
    """The pair's engines, and short ways to write single rows; times are `NOW` unless given."""

    def __init__(self, pair: DatabasePair) -> None:
        """Migrate both databases."""
        migrate(pair.primary, Database.PRIMARY)
        migrate(pair.shadow, Database.SHADOW)
        self.pair: Final = pair
        self.primary: Final = create_sync_engine(pair.primary)
        self.shadow: Final = create_sync_engine(pair.shadow)

    @classmethod
    @contextmanager
    def opened(cls, pair: DatabasePair) -> Iterator[Self]:
        """Open the pair, and let go of all connections at the end."""
        stores = cls(pair)
        try:
            yield stores
        finally:
            stores.primary.dispose()
            stores.shadow.dispose()

    def put(self, key: str, **fields: object) -> None:
        """Write a listing into the primary only."""
        self.put_all([_listing(key, fields)])

    def put_all(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write whole rows into the primary only."""
        _insert(self.primary, listings, rows)

    def shadow_put(self, key: str, **fields: object) -> None:
        """Write a listing into the shadow only."""
        self.shadow_put_all([_listing(key, fields)])

    def shadow_put_all(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write whole rows into the shadow only."""
        _insert(self.shadow, shadow_listings, [{"deleted_at": None, **row} for row in rows])

    def put_both(self, key: str, **fields: object) -> None:
        """Write the same listing into both stores."""
        self.put(key, **fields)
        self.shadow_put(key, **fields)

    def tombstone(self, key: str, version: int) -> None:
        """Write a tombstone into the shadow."""
        row = {"id": key, "version": version, "updated_at": NOW, "deleted_at": NOW}
        _insert(self.shadow, shadow_listings, [row])

    def entry(self, key: str, operation: str, version: int, **fields: object) -> None:
        """Write an outbox row: pending, or failed with `state="failed", failure_type=...`."""
        row = {
            "entity_type": LISTING,
            "entity_id": key,
            "operation": operation,
            "version": version,
            "created_at": NOW,
            "state": "pending",
            **fields,
        }
        _insert(self.primary, outbox, [row])

    def failure_evidence(self, key: str, request_id: str | None = None, **details: DetailValue) -> None:
        """Write the evidence of a failed shadow write."""
        subject = Subject(LISTING, key, request_id)
        row = new_record(EventType.SHADOW_WRITE_FAILURE, subject, details).row()
        _insert(self.primary, evidence_records, [row])

    def change(self, key: str, **fields: object) -> None:
        """Change a row of the primary only."""
        with self.primary.begin() as connection:
            connection.execute(update(listings).where(listings.c.id == key).values(**fields))

    def shadow_change(self, key: str, **fields: object) -> None:
        """Change a row of the shadow only."""
        with self.shadow.begin() as connection:
            connection.execute(update(shadow_listings).where(shadow_listings.c.id == key).values(**fields))

    def remove(self, key: str) -> None:
        """Delete a row of the primary only."""
        with self.primary.begin() as connection:
            connection.execute(delete(listings).where(listings.c.id == key))

    def shadow_remove(self, key: str) -> None:
        """Delete a row of the shadow only, without a tombstone."""
        with self.shadow.begin() as connection:
            connection.execute(delete(shadow_listings).where(shadow_listings.c.id == key))

    def settle(self, key: str) -> None:
        """Delete all outbox rows of a key."""
        with self.primary.begin() as connection:
            connection.execute(delete(outbox).where(outbox.c.entity_id == key))

    def clear(self) -> None:
        """Empty every table that can be; evidence stays."""
        with self.primary.begin() as connection:
            for table in (outbox, listings, discrepancies, job_runs):
                connection.execute(delete(table))
        with self.shadow.begin() as connection:
            connection.execute(delete(shadow_listings))

    def rows(self, table: Table, engine: Engine | None = None) -> Sequence[Row[Any]]:
        """Read a whole table, by default of the primary, in the order of its primary key."""
        chosen = (engine or self.primary).execution_options(**{READ_ONLY_OPTION: True})
        with chosen.connect() as connection:
            return connection.execute(select(table).order_by(*table.primary_key.columns)).all()

    def evidence(self, event_type: EventType) -> Sequence[Row[Any]]:
        """Read the evidence of one type, oldest first."""
        found = [row for row in self.rows(evidence_records) if row.event_type == event_type.value]
        return sorted(found, key=lambda row: row.occurred_at)

    def open_discrepancies(self) -> dict[str, tuple[str, str]]:
        """Read what is open: key -> (type, cause)."""
        return {
            row.entity_id: (row.discrepancy_type, row.cause)
            for row in self.rows(discrepancies)
            if row.resolved_at is None
        }


def listing_row(key: str, **fields: object) -> dict[str, Any]:
    """Build a whole row of `listings`."""
    return _listing(key, fields)


def _listing(key: str, fields: dict[str, object]) -> dict[str, Any]:
    return {
        "id": key,
        "title": "a title",
        "price": Decimal("10.00"),
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
        **fields,
    }


def _insert(engine: Engine, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        with engine.begin() as connection:
            connection.execute(insert(table), list(rows))
