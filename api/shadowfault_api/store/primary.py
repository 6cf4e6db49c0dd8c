"""The primary store: listings, their views, and the outbox row that goes with each write of a listing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Interval,
    Row,
    Select,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from shadowfault_api.entities import (
    LISTING,
    Listing,
    Operation,
    Origin,
    OutboxEntry,
    new_id,
    payload_of,
)
from shadowfault_api.store.schema import listing_views, listings, outbox
from shadowfault_api.store.urls import read_only

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from decimal import Decimal

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class NotFoundError(Exception):
    """There is no such listing."""


class VersionConflictError(Exception):
    """The listing is not at the version the caller expected."""


@dataclass(frozen=True, slots=True)
class Change:
    """What to set on a listing; None leaves a field alone."""

    title: str | None = None
    price: Decimal | None = None


class Primary:
    """The primary database and its writers.

    SQLite has one writer at a time, and waits for it by polling: here the writers of one process queue up
    fairly instead, and only processes meet at the file.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.reader = read_only(engine)
        self.postgresql = engine.dialect.name == "postgresql"
        # On PostgreSQL: one statement, its own transaction.
        self.autocommit = self.reader
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that writes; committed at the end, rolled back on an error."""
        if self.postgresql:
            async with self.engine.begin() as connection:
                yield connection
            return
        async with self._turn, self.engine.begin() as connection:
            yield connection

    def now(self, plus_seconds: float = 0.0) -> Any:  # noqa: ANN401 - a time, or the SQL that gives it
        """Now, or some seconds later, by the clock all replicas share: the database's.

        SQLite has none but this machine's, which all its processes share.
        """
        later = timedelta(seconds=plus_seconds)
        return func.now() + later if self.postgresql else datetime.now(UTC) + later

    async def ping(self) -> None:
        """Ask for an answer; raises what the driver raises."""
        async with self.reader.connect() as connection:
            await connection.execute(text("SELECT 1"))


# Statements that are built once: building one takes longer than PostgreSQL takes to run it.
_ENQUEUE_SQLITE: Final = insert(outbox).returning(outbox.c.id)
# The clock of a claim is the database's, see `Primary.now`. The other columns are those of the parameters.
_ENQUEUE: Final = _ENQUEUE_SQLITE.values(
    claimed_until=func.now() + cast(bindparam("claim", type_=Interval()), Interval())
)


def _create_statement() -> Any:  # noqa: ANN401 - a statement of SQLAlchemy
    """Build the insert of a listing and of its outbox row, with what they have in common sent once."""
    listing_id = bindparam("listing_id", type_=listings.c.id.type)
    at = bindparam("at", type_=listings.c.created_at.type)
    row = {
        "id": listing_id,
        "title": bindparam("title", type_=listings.c.title.type),
        "price": bindparam("price", type_=listings.c.price.type),
        "version": literal_column("1"),
        "created_at": at,
        "updated_at": at,
    }
    both = _ENQUEUE.add_cte(insert(listings).values(row).cte("listing"))
    return both.values(
        entity_type=literal_column(f"'{LISTING}'"),
        entity_id=listing_id,
        operation=literal_column(f"'{Operation.CREATE.value}'"),
        version=literal_column("1"),
        created_at=at,
    )


_CREATE: Final = _create_statement()


class ListingStore:
    """Reads and writes of listings in the primary store."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary

    async def create(self, title: str, price: Decimal, origin: Origin) -> tuple[Listing, OutboxEntry]:
        """Write a listing and its outbox row in one transaction."""
        now = datetime.now(UTC)
        listing = Listing(new_id(), title, price, 1, now, now)
        values = _outbox_values(listing, Operation.CREATE, now, origin)
        if self._primary.postgresql:
            # One statement is one transaction: one round trip, where BEGIN, two inserts and COMMIT are four.
            parameters = {
                "listing_id": listing.id,
                "title": title,
                "price": price,
                "at": now,
                "payload": values["payload"],
                "request_id": origin.request_id,
                "request_id_given": origin.request_id_given,
                "traceparent": origin.traceparent,
                "claim": _interval(origin.claim_seconds),
            }
            async with self._primary.autocommit.connect() as connection:
                return listing, _entry((await connection.execute(_CREATE, parameters)).scalar_one(), values)
        async with self._primary.writing() as connection:
            await connection.execute(insert(listings), asdict(listing))
            return listing, await self._enqueue(connection, values, origin)

    async def get(self, listing_id: str) -> Listing | None:
        """Read one listing."""
        async with self._primary.reader.connect() as connection:
            row = (await connection.execute(select(listings).where(listings.c.id == listing_id))).first()
        return None if row is None else listing_from(row)

    async def page(self, after: str | None, limit: int) -> Sequence[Listing]:
        """Read up to `limit` listings in the order of their ids, those after `after`."""
        async with self._primary.reader.connect() as connection:
            rows = (await connection.execute(page_query(after, limit))).all()
        return [listing_from(row) for row in rows]

    async def update(
        self, listing_id: str, change: Change, origin: Origin, *, expected_version: int | None = None
    ) -> tuple[Listing, OutboxEntry]:
        """Change a listing.

        Raises:
            NotFoundError: there is none.
            VersionConflictError: `expected_version` is given and is not the listing's.
        """
        now = datetime.now(UTC)
        changed: dict[str, Any] = {"version": listings.c.version + 1, "updated_at": now}
        if change.title is not None:
            changed["title"] = change.title
        if change.price is not None:
            changed["price"] = change.price
        statement = update(listings).where(listings.c.id == listing_id).values(changed).returning(listings)
        async with self._primary.writing() as connection:
            row = (await connection.execute(statement)).first()
            listing = _expect(row, expected_version, written=1)
            values = _outbox_values(listing, Operation.UPDATE, now, origin)
            return listing, await self._enqueue(connection, values, origin)

    async def delete(
        self, listing_id: str, origin: Origin, *, expected_version: int | None = None
    ) -> OutboxEntry:
        """Remove a listing and its views. The tombstone in the shadow gets the next version.

        Raises:
            NotFoundError: there is none.
            VersionConflictError: `expected_version` is given and is not the listing's.
        """
        now = datetime.now(UTC)
        async with self._primary.writing() as connection:
            statement = delete(listings).where(listings.c.id == listing_id).returning(listings)
            row = (await connection.execute(statement)).first()
            listing = _expect(row, expected_version, written=0)
            values = _outbox_values(listing, Operation.DELETE, now, origin)
            return await self._enqueue(connection, values, origin)

    async def exists(self, listing_id: str) -> bool:
        """Tell whether there is such a listing."""
        async with self._primary.reader.connect() as connection:
            query = select(literal(1)).where(listings.c.id == listing_id)
            return (await connection.execute(query)).first() is not None

    async def add_view(self, listing_id: str) -> None:
        """Count one view: the non-critical write.

        Raises:
            NotFoundError: there is no such listing.
        """
        one_more = {"views": listing_views.c.views + 1}
        source = select(listings.c.id, literal(1)).where(listings.c.id == listing_id)
        columns = ["listing_id", "views"]
        statement: Any
        if self._primary.postgresql:
            statement = postgresql.insert(listing_views).from_select(columns, source)
        else:
            statement = sqlite.insert(listing_views).from_select(columns, source)
        statement = statement.on_conflict_do_update(index_elements=["listing_id"], set_=one_more)
        async with self._primary.writing() as connection:
            found = (await connection.execute(statement.returning(listing_views.c.views))).first()
        if found is None:
            raise NotFoundError(listing_id)

    async def views(self, listing_id: str) -> int:
        """Read how often a listing was viewed.

        Raises:
            NotFoundError: there is no such listing.
        """
        query = (
            select(listing_views.c.views)
            .select_from(listings.outerjoin(listing_views))
            .where(listings.c.id == listing_id)
        )
        async with self._primary.reader.connect() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise NotFoundError(listing_id)
        return row.views or 0

    async def _enqueue(
        self, connection: AsyncConnection, values: Mapping[str, Any], origin: Origin
    ) -> OutboxEntry:
        seconds = origin.claim_seconds
        if self._primary.postgresql:
            statement, claim = _ENQUEUE, {"claim": _interval(seconds)}
        else:
            claimed_until = None if seconds is None else self._primary.now(seconds)
            statement, claim = _ENQUEUE_SQLITE, {"claimed_until": claimed_until}
        result = await connection.execute(statement, {**values, **claim})
        return _entry(result.scalar_one(), values)


def _interval(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def page_query(after: str | None, limit: int) -> Select[Any]:
    """Build the keyset query of one page."""
    query = select(listings).order_by(listings.c.id).limit(limit)
    return query if after is None else query.where(listings.c.id > after)


def listing_from(row: Row[Any]) -> Listing:
    """Read a listing from a row of either store."""
    return Listing(row.id, row.title, row.price, row.version, row.created_at, row.updated_at)


def _expect(row: Row[Any] | None, expected_version: int | None, *, written: int) -> Listing:
    """Check the row a write returned; raising rolls the write back."""
    if row is None:
        raise NotFoundError
    listing = listing_from(row)
    if expected_version is not None and listing.version - written != expected_version:
        raise VersionConflictError
    return listing


def _outbox_values(listing: Listing, operation: Operation, now: datetime, origin: Origin) -> dict[str, Any]:
    deleting = operation is Operation.DELETE
    return {
        "entity_type": LISTING,
        "entity_id": listing.id,
        "operation": operation.value,
        "version": listing.version + 1 if deleting else listing.version,
        "payload": None if deleting else payload_of(listing),
        "request_id": origin.request_id,
        "request_id_given": origin.request_id_given,
        "created_at": now,
        "traceparent": origin.traceparent,
    }


def _entry(outbox_id: int, values: Mapping[str, Any]) -> OutboxEntry:
    return OutboxEntry(
        id=outbox_id,
        entity_type=values["entity_type"],
        entity_id=values["entity_id"],
        operation=Operation(values["operation"]),
        version=values["version"],
        payload=values["payload"],
        request_id=values["request_id"],
        request_id_given=values["request_id_given"],
        created_at=values["created_at"],
        traceparent=values["traceparent"],
    )
