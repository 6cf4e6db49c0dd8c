"""The outbox: what replicas claim, what becomes of a shadow write, and the evidence of a failure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Select,
    and_,
    any_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from shadowfault_api.entities import Operation, OutboxEntry
from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.store.schema import evidence_records, outbox
from shadowfault_api.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from shadowfault_api.store.primary import Primary

SUPERSEDED: Final = "superseded"
# Looks for free rows, where other replicas are faster each time.
_CLAIM_ATTEMPTS: Final = 3
# As text, with one row to fetch: what is done for each batch is done under load.
_REMOVE: Final = text("""
    WITH removed AS (DELETE FROM outbox WHERE id = ANY (CAST(:ids AS bigint[])) RETURNING id, state)
    SELECT array_agg(id) FROM removed WHERE state = 'pending'
""")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shadow write was not made. `failure_type` is the label of the metric."""

    failure_type: str
    experiment: str | None = None
    experiment_uid: str | None = None
    error_class: str | None = None
    sql_state: str | None = None


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class FailedWrite:
    """An entry, and why and when its shadow write failed: the record may come long after."""

    entry: OutboxEntry
    failure: Failure
    at: datetime = field(default_factory=_now, compare=False)


@dataclass(frozen=True, slots=True)
class Settled:
    """What one call put on record. Each entry is settled once, over all replicas and restarts."""

    written: Sequence[OutboxEntry]
    failed: Sequence[FailedWrite]


class Outbox:
    """The table `outbox`, shared by all replicas. `page_size`: how many pending rows one query looks at."""

    def __init__(self, primary: Primary, *, claim_seconds: float, page_size: int = 200) -> None:
        self.primary = primary
        self.claim_seconds = claim_seconds
        self._page_size = page_size

    async def claim(self, limit: int, *, older_than_seconds: float = 0.0) -> Sequence[OutboxEntry]:
        """Take up to `limit` pending rows nobody holds, oldest first; ours until the claim runs out."""
        for _ in range(_CLAIM_ATTEMPTS):
            ids = await self._find_free(limit, older_than_seconds)
            entries = await self._claim(ids) if ids else []
            if entries or not ids:
                return entries
        return []  # each time another replica was first: it is being done

    async def _claim(self, ids: Sequence[int]) -> Sequence[OutboxEntry]:
        async with self.primary.writing() as connection:
            still_free = (
                select(outbox.c.id).where(_one_of(connection, ids), self._free()).order_by(outbox.c.id)
            )
            statement = (
                update(outbox)
                .where(outbox.c.id.in_(still_free.with_for_update(skip_locked=True)))
                .values(claimed_until=self.primary.now(self.claim_seconds))
                .returning(outbox)
            )
            rows = (await connection.execute(statement)).all()
        return [_entry_from(row) for row in sorted(rows, key=lambda row: row.id)]

    async def _find_free(self, limit: int, older_than_seconds: float) -> Sequence[int]:
        """Find the oldest rows that are free.

        It goes through what is pending in the order of ids, a page at a time, and stops where it has enough
        or, ids growing with time, where rows are too young: a million pending cost no more than a page.
        """
        found: list[int] = []
        after = 0
        async with self.primary.reader.connect() as connection:
            while True:
                old = outbox.c.created_at < self.primary.now(-older_than_seconds)
                page = (await connection.execute(self.page_of_pending(after, self._page_size, old))).all()
                found.extend(row.id for row in page if row.free and (row.old or not older_than_seconds))
                enough = len(found) >= limit or len(page) < self._page_size
                if enough or (older_than_seconds and not page[-1].old):
                    return found[:limit]
                after = page[-1].id

    def page_of_pending(self, after: int, limit: int, old: ColumnElement[bool]) -> Select[Any]:
        """Build the query of `limit` pending rows, oldest first, and whether each is free and `old`.

        The index on (state, id) gives just these: to have the free ones only, PostgreSQL might sort all.
        """
        return (
            select(outbox.c.id, self._free().label("free"), old.label("old"))
            .where(outbox.c.state == "pending", outbox.c.id > after)
            .order_by(outbox.c.id)
            .limit(limit)
        )

    def _free(self) -> ColumnElement[bool]:
        unclaimed = or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until < self.primary.now())
        return and_(outbox.c.state == "pending", unclaimed)

    async def release(self, entries: Iterable[OutboxEntry]) -> None:
        """Give up claims, so that another replica need not wait for them to run out."""
        ids = [entry.id for entry in entries]
        if not ids:
            return
        async with self.primary.writing() as connection:
            await connection.execute(
                update(outbox)
                .where(_one_of(connection, ids), outbox.c.state == "pending")
                .values(claimed_until=None)
            )

    async def record(self, written: Sequence[OutboxEntry], failed: Sequence[FailedWrite]) -> Settled:
        """Record what became of shadow writes, in one transaction.

        A row written is deleted, and with it every older row of its key: a newer write carries the whole
        state. One of those that is pending, here or at another replica, gets the evidence of a write that
        was superseded. A row failed gets its cause and its evidence.

        Returns:
            What this call settled: another replica may have been first. Only this is counted.
        """
        if self.primary.postgresql and not failed and all(entry.version == 1 for entry in written):
            # Nothing can be older than a first version: one statement is the whole transaction.
            async with self.primary.autocommit.connect() as connection:
                return Settled(await _remove(connection, written), [])
        async with self.primary.writing() as connection:
            older = await _lock(connection, written, failed)
            recorded = await _record_failures(connection, failed)
            done = await _remove(connection, written)
            overtaken = await _supersede(connection, written, older)
            everything = [*recorded, *overtaken]
            if everything:
                await connection.execute(insert(evidence_records), await _evidence_of(everything))
        return Settled(done, everything)


def _one_of(connection: AsyncConnection, ids: Sequence[int]) -> ColumnElement[bool]:
    """Match rows by id; on PostgreSQL by one text for any number of them, which stays prepared."""
    if connection.dialect.name == "postgresql":
        return outbox.c.id == any_(literal(list(ids), ARRAY(BigInteger)))
    return outbox.c.id.in_(ids)


_Key = tuple[str, str]


def _key(entry: OutboxEntry) -> _Key:
    return entry.entity_type, entry.entity_id


async def _lock(
    connection: AsyncConnection, written: Sequence[OutboxEntry], failed: Sequence[FailedWrite]
) -> Sequence[int]:
    """Lock what will be changed, in the order of ids; returns the rows up to a version that was written.

    Without the lock one replica could fail the older write of a key while another is removing it.
    """
    # Nothing can be older than a first version.
    keys = {_key(entry) for entry in written if entry.version > 1}
    if not keys and not failed:
        return []
    ids = [entry.id for entry in written] + [write.entry.id for write in failed]
    mine = _one_of(connection, ids)
    if keys:
        mine = or_(mine, tuple_(outbox.c.entity_type, outbox.c.entity_id).in_(keys))
    query = (
        select(outbox.c.id, outbox.c.entity_type, outbox.c.entity_id, outbox.c.version)
        .where(mine)
        .order_by(outbox.c.id)
        .with_for_update()
    )
    newest: dict[_Key, int] = {}
    for entry in written:
        newest[_key(entry)] = max(entry.version, newest.get(_key(entry), 0))
    return [
        row.id
        for row in await connection.execute(query)
        if row.version <= newest.get((row.entity_type, row.entity_id), 0)
    ]


async def _record_failures(
    connection: AsyncConnection, failed: Sequence[FailedWrite]
) -> Sequence[FailedWrite]:
    groups: defaultdict[Failure, list[int]] = defaultdict(list)
    for write in failed:
        groups[write.failure].append(write.entry.id)
    settled: set[int] = set()
    for failure, ids in groups.items():
        statement = (
            update(outbox)
            .where(_one_of(connection, ids), outbox.c.state == "pending")
            .values(
                state="failed",
                failure_type=failure.failure_type,
                experiment=failure.experiment,
                experiment_uid=failure.experiment_uid,
                attempts=outbox.c.attempts + 1,
                claimed_until=None,
            )
            .returning(outbox.c.id)
        )
        settled.update((await connection.execute(statement)).scalars())
    # Where the database's clock leaps, a row is claimed again by who still holds it: a batch has it twice.
    return list({write.entry.id: write for write in failed if write.entry.id in settled}.values())


async def _remove(connection: AsyncConnection, written: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
    """Remove rows that were written; those another replica had called failed are not counted twice."""
    if not written:
        return []
    ids = [entry.id for entry in written]
    if connection.dialect.name == "postgresql":
        pending = set((await connection.execute(_REMOVE, {"ids": ids})).scalar_one() or ())
    else:
        statement = delete(outbox).where(outbox.c.id.in_(ids)).returning(outbox.c.id, outbox.c.state)
        pending = {row.id for row in await connection.execute(statement) if row.state == "pending"}
    return list({entry.id: entry for entry in written if entry.id in pending}.values())  # as above


async def _supersede(
    connection: AsyncConnection, written: Sequence[OutboxEntry], older: Sequence[int]
) -> Sequence[FailedWrite]:
    """Remove what a newer write made pointless; returns those of it that were not settled yet."""
    ids = set(older) - {entry.id for entry in written}
    if not ids:
        return []
    statement = delete(outbox).where(_one_of(connection, sorted(ids))).returning(outbox)
    rows = [row for row in await connection.execute(statement) if row.state == "pending"]
    failure = Failure(SUPERSEDED)
    return [FailedWrite(_entry_from(row), failure) for row in sorted(rows, key=lambda row: row.id)]


async def count_by_state(connection: AsyncConnection) -> dict[str, int]:
    """Count the rows of the outbox in each state that has any."""
    query = select(outbox.c.state, func.count()).group_by(outbox.c.state)
    return {row[0]: row[1] for row in await connection.execute(query)}


async def oldest_pending(connection: AsyncConnection) -> datetime | None:
    """Read when the write that waits the longest was made; None where none waits."""
    query = select(outbox.c.created_at).where(outbox.c.state == "pending").order_by(outbox.c.id).limit(1)
    return (await connection.execute(query)).scalar()


async def _evidence_of(writes: Sequence[FailedWrite]) -> Sequence[dict[str, Any]]:
    """Build the records of a batch; hashing hundreds of them at once would hold requests up."""
    return [_evidence(write) async for write in in_turns(writes)]


def _evidence(write: FailedWrite) -> dict[str, Any]:
    entry, failure = write.entry, write.failure
    record = new_record(
        EventType.SHADOW_WRITE_FAILURE,
        Subject(entry.entity_type, entry.entity_id, entry.request_id),
        {
            "operation": entry.operation.value,
            "version": entry.version,
            "attempt": entry.attempts,
            "outboxId": entry.id,
            "failureType": failure.failure_type,
            "experiment": failure.experiment,
            "experimentUid": failure.experiment_uid,
            "errorClass": failure.error_class,
            "sqlState": failure.sql_state,
        },
        occurred_at=write.at,
    )
    return record.row()


def _entry_from(row: Row[Any]) -> OutboxEntry:
    return OutboxEntry(
        id=row.id,
        entity_type=row.entity_type,
        entity_id=row.entity_id,
        operation=Operation(row.operation),
        version=row.version,
        state=row.payload,
        request_id=row.request_id,
        request_id_given=row.request_id_given,
        created_at=row.created_at,
        attempts=row.attempts,
        traceparent=row.traceparent,
    )
