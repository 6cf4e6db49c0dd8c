"""The primary store: listings, their views, and the outbox row that goes with each write of a listing."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
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
from shadowfault_api.store.types import PRICE_PRECISION, PRICE_SCALE
from shadowfault_api.store.urls import read_only

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from decimal import Decimal

    from sqlalchemy import TextClause
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


@dataclass(frozen=True, slots=True)
class _Write:
    """A write of a listing, and what goes into the outbox of it; of a delete it is the listing there was."""

    listing: Listing
    operation: Operation
    origin: Origin

    @property
    def version(self) -> int:
        return self.listing.version + 1 if self.operation is Operation.DELETE else self.listing.version

    @property
    def state(self) -> Listing | None:
        return None if self.operation is Operation.DELETE else self.listing

    def values(self) -> dict[str, Any]:
        """Give the row of the outbox."""
        return {
            "entity_type": LISTING,
            "entity_id": self.listing.id,
            "operation": self.operation.value,
            "version": self.version,
            "payload": None if self.state is None else payload_of(self.state),
            "request_id": self.origin.request_id,
            "request_id_given": self.origin.request_id_given,
            "traceparent": self.origin.traceparent,
        }

    def entry(self, outbox_id: int, created_at: datetime) -> OutboxEntry:
        """Give the same as an entry, once it has its number and its time."""
        return OutboxEntry(
            id=outbox_id,
            entity_type=LISTING,
            entity_id=self.listing.id,
            operation=self.operation,
            version=self.version,
            state=self.state,
            request_id=self.origin.request_id,
            request_id_given=self.origin.request_id_given,
            created_at=created_at,
            traceparent=self.origin.traceparent,
        )


# Statements that are built once: building one takes longer than PostgreSQL takes to run it.
_ENQUEUE_SQLITE: Final = insert(outbox).returning(outbox.c.id, outbox.c.created_at)
# The clock is the database's, see `Primary.now`. The other columns are those of the parameters.
_ENQUEUE: Final = _ENQUEUE_SQLITE.values(
    created_at=func.now(),
    claimed_until=func.now() + cast(bindparam("claim", type_=Interval()), Interval()),
)
# The insert of a listing and of its outbox row, with what they have in common sent once. As text: of a tree
# SQLAlchemy makes a key at each execution. What is the same for most requests is a part of it, and PostgreSQL
# makes the payload, as `payload_of` has it: a parameter costs the service more than this costs PostgreSQL.
_CREATE: Final = """
    WITH sent AS (
        SELECT CAST(:id AS varchar) AS id, CAST(:title AS text) AS title,
            CAST(:price AS numeric({precision}, {scale})) AS price
    ), listing AS (
        INSERT INTO listings (id, title, price, version, created_at, updated_at)
        SELECT id, title, price, 1, now(), now() FROM sent
    )
    INSERT INTO outbox (
        entity_type, entity_id, operation, version, payload, request_id, request_id_given, created_at,
        claimed_until, traceparent
    )
    SELECT '{entity_type}', id, '{operation}', 1,
        jsonb_build_object('title', title, 'price', price::text, 'createdAt', written, 'updatedAt', written),
        :request_id, {given}, now(), {claimed_until}, {traceparent}
    FROM sent, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24\\:MI\\:SS.US"+00\\:00"') AS written
    RETURNING id, created_at
"""


@cache
def _create_statement(claim_seconds: float | None, *, given: bool, traced: bool) -> TextClause:
    claimed_until = "NULL" if claim_seconds is None else f"now() + interval '{claim_seconds:f} seconds'"
    sql = _CREATE.format(
        precision=PRICE_PRECISION,
        scale=PRICE_SCALE,
        entity_type=LISTING,
        operation=Operation.CREATE.value,
        given=str(given).lower(),
        claimed_until=claimed_until,
        traceparent=":traceparent" if traced else "NULL",
    )
    return text(sql).bindparams(bindparam("price", type_=listings.c.price.type))


class ListingStore:
    """Reads and writes of listings in the primary store."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary

    async def create(self, title: str, price: Decimal, origin: Origin) -> tuple[Listing, OutboxEntry]:
        """Write a listing and its outbox row in one transaction."""
        if self._primary.postgresql:
            # One statement is one transaction: one round trip, where BEGIN, two inserts and COMMIT are four.
            listing_id = new_id()
            parameters = {
                "id": listing_id,
                "title": title,
                "price": price,
                "request_id": origin.request_id,
            }
            if origin.traceparent is not None:
                parameters["traceparent"] = origin.traceparent
            statement = _create_statement(
                origin.claim_seconds,
                given=origin.request_id_given,
                traced=origin.traceparent is not None,
            )
            async with self._primary.autocommit.connect() as connection:
                row = (await connection.execute(statement, parameters)).one()
            at = row.created_at.astimezone(UTC)
            listing = Listing(listing_id, title, price, 1, at, at)
            return listing, _Write(listing, Operation.CREATE, origin).entry(row.id, at)
        at = datetime.now(UTC)
        listing = Listing(new_id(), title, price, 1, at, at)
        async with self._primary.writing() as connection:
            await connection.execute(insert(listings), asdict(listing))
            return listing, await self._enqueue(connection, _Write(listing, Operation.CREATE, origin))

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
        changed: dict[str, Any] = {"version": listings.c.version + 1, "updated_at": self._primary.now()}
        if change.title is not None:
            changed["title"] = change.title
        if change.price is not None:
            changed["price"] = change.price
        statement = update(listings).where(listings.c.id == listing_id).values(changed).returning(listings)
        async with self._primary.writing() as connection:
            row = (await connection.execute(statement)).first()
            listing = _expect(row, expected_version, written=1)
            return listing, await self._enqueue(connection, _Write(listing, Operation.UPDATE, origin))

    async def delete(
        self, listing_id: str, origin: Origin, *, expected_version: int | None = None
    ) -> OutboxEntry:
        """Remove a listing and its views. The tombstone in the shadow gets the next version.

        Raises:
            NotFoundError: there is none.
            VersionConflictError: `expected_version` is given and is not the listing's.
        """
        async with self._primary.writing() as connection:
            statement = delete(listings).where(listings.c.id == listing_id).returning(listings)
            row = (await connection.execute(statement)).first()
            listing = _expect(row, expected_version, written=0)
            return await self._enqueue(connection, _Write(listing, Operation.DELETE, origin))

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

    async def _enqueue(self, connection: AsyncConnection, write: _Write) -> OutboxEntry:
        seconds = write.origin.claim_seconds
        if self._primary.postgresql:
            interval = None if seconds is None else timedelta(seconds=seconds)
            statement, times = _ENQUEUE, {"claim": interval}
        else:
            claimed_until = None if seconds is None else self._primary.now(seconds)
            statement = _ENQUEUE_SQLITE
            times = {"created_at": self._primary.now(), "claimed_until": claimed_until}
        row = (await connection.execute(statement, {**write.values(), **times})).one()
        return write.entry(row.id, row.created_at)


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
