"""The shadow store: version-guarded upserts with tombstones, and the reads in place of a faulted primary."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from shadowfault_api.entities import Listing, OutboxEntry, shadow_row
from shadowfault_api.store.migrate import Database, migrate
from shadowfault_api.store.primary import listing_from
from shadowfault_api.store.schema import shadow_listings
from shadowfault_api.store.types import exact_price
from shadowfault_api.store.urls import read_only
from shadowfault_api.turns import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncEngine


_COLUMNS: Final = tuple(column.name for column in shadow_listings.columns)


_GUARDED: Final = sqlite.insert(shadow_listings)
# An upsert that only goes forward.
_UPSERT_SQLITE: Final = _GUARDED.on_conflict_do_update(
    index_elements=["id"],
    set_={name: _GUARDED.excluded[name] for name in _COLUMNS if name != "id"},
    where=shadow_listings.c.version < _GUARDED.excluded.version,
).returning(shadow_listings.c.id)


def _batch_statement() -> TextClause:
    """Build the same for a whole batch: one parameter to send, one statement to plan, one row to fetch."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    columns = {column.name: column.type.compile(dialect=dialect) for column in shadow_listings.columns}
    typed = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "id")
    return text(f"""
        WITH written AS (
            INSERT INTO listings ({", ".join(columns)})
            SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS sent({typed})
            ON CONFLICT (id) DO UPDATE SET {changed} WHERE listings.version < excluded.version
            RETURNING id
        )
        SELECT array_agg(id) FROM written
    """)  # noqa: S608 - names and types of columns


_UPSERT_BATCH: Final = _batch_statement()


class DeletedError(Exception):
    """The shadow holds a tombstone for this key."""


class Shadow:
    """The shadow database. Every call may fail or hang; whoever calls sets the deadline.

    Args:
        engine: for writes, and for looking whether they can be made.
        reads: for `get` and `page`, which users wait for: on a pool of their own they take no write's place.
    """

    def __init__(
        self, url: str | URL, engine: AsyncEngine, reads: AsyncEngine, *, migrate_timeout_seconds: float
    ) -> None:
        self._url = url
        self._engine = engine
        self._reads = reads
        self._reader = read_only(reads)
        # On PostgreSQL: one statement, its own transaction.
        self._autocommit = read_only(engine)
        self._migrate_timeout = migrate_timeout_seconds
        self._migration: asyncio.Future[None] | None = None
        self._postgresql = engine.dialect.name == "postgresql"

    async def prepare(self) -> None:
        """Bring the shadow to the newest schema once; later calls only ask it for an answer.

        Where it gives none it is brought there anew next time: it may be another, empty or older.
        """
        if self._migration is None or (self._migration.done() and _failed(self._migration)):
            # First whether it answers at all, in a way that can be cancelled: a migration cannot.
            async with self._autocommit.connect() as connection:
                await connection.execute(select(1))
            self._migration = in_daemon_thread(
                partial(migrate, self._url, Database.SHADOW, timeout_seconds=self._migrate_timeout)
            )
        # Shielded: a caller's deadline must not start a second thread beside one that hangs.
        await asyncio.shield(self._migration)
        # The table, not just the server: a shadow that cannot take a row must not be called reachable.
        try:
            async with self._autocommit.connect() as connection:
                await connection.execute(select(shadow_listings.c.id).limit(1))
        except DBAPIError:
            self._migration = None
            raise

    async def apply(self, entries: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
        """Write entries in one transaction; an entry older than what the shadow holds changes nothing.

        Of a key only the newest is sent: it carries the whole state, and nobody sees inside a transaction.

        Returns:
            The entries that were overtaken: the shadow holds a newer version of their key.
        """
        newest: dict[str, OutboxEntry] = {}
        for entry in entries:
            if entry.entity_id not in newest or newest[entry.entity_id].version < entry.version:
                newest[entry.entity_id] = entry
        # In the order of keys, so that two replicas cannot wait for each other.
        rows = [shadow_row(newest[key]) for key in sorted(newest)]
        written = await self._upsert(rows)
        held = await self._held(newest.keys() - written)
        # At the same version it is the same write, made by an attempt whose outcome nobody recorded.
        return [entry for entry in entries if held.get(entry.entity_id, 0) > newest[entry.entity_id].version]

    async def get(self, listing_id: str) -> Listing | None:
        """Read one listing; None when the shadow does not know it.

        Raises:
            DeletedError: it is known to be deleted.
        """
        query = select(shadow_listings).where(shadow_listings.c.id == listing_id)
        async with self._reader.connect() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        if row.deleted_at is not None:
            raise DeletedError(listing_id)
        return listing_from(row)

    async def page(self, after: str | None, limit: int) -> Sequence[Listing]:
        """Read up to `limit` listings in the order of their ids, those after `after`, without the deleted."""
        query = (
            select(shadow_listings)
            .where(shadow_listings.c.deleted_at.is_(None))
            .order_by(shadow_listings.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(shadow_listings.c.id > after)
        async with self._reader.connect() as connection:
            return [listing_from(row) for row in (await connection.execute(query)).all()]

    async def _upsert(self, rows: Sequence[dict[str, Any]]) -> set[str]:
        """Upsert all rows or, on an error, none; returns the keys that were behind."""
        if self._postgresql:
            batch = {"rows": json.dumps(rows, default=_as_text)}
            async with self._autocommit.connect() as connection:
                return set((await connection.execute(_UPSERT_BATCH, batch)).scalar_one() or ())
        async with self._engine.begin() as connection:
            return set((await connection.execute(_UPSERT_SQLITE, rows)).scalars())

    async def _held(self, refused: Collection[str]) -> dict[str, int]:
        """Read what the shadow holds of the keys that were not behind.

        The upsert is made by now, and stays so where this read fails: they are at their version or beyond.
        """
        if not refused:
            return {}
        try:
            return await self._versions(refused)
        except DBAPIError:
            return {}

    async def _versions(self, keys: Collection[str]) -> dict[str, int]:
        query = select(shadow_listings.c.id, shadow_listings.c.version).where(shadow_listings.c.id.in_(keys))
        async with self._autocommit.connect() as connection:
            return {row.id: row.version for row in await connection.execute(query)}

    async def close(self) -> None:
        """Let go of all connections."""
        if self._migration is not None and not self._migration.done():
            self._migration.cancel()
        await self._engine.dispose()
        await self._reads.dispose()


def _failed(task: asyncio.Future[None]) -> bool:
    return task.cancelled() or task.exception() is not None


def _as_text(value: object) -> str:
    """Write what JSON has no type for; the server would round a price where a bound one is refused."""
    return str(exact_price(value)) if isinstance(value, Decimal) else str(value)
