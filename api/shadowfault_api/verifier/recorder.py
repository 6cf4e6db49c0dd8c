"""What the verifier writes: discrepancies with their evidence, each batch of both in one transaction."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, update

from shadowfault_api.entities import new_id
from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.store.schema import discrepancies, evidence_records, outbox
from shadowfault_api.verifier.ledger import Changes, changes
from shadowfault_api.verifier.model import UNEXPLAINED, Found, Open

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

    from shadowfault_api.verifier.side import Side


@dataclass(frozen=True, slots=True)
class OpenCounts:
    """Discrepancies that are not resolved."""

    by_type: dict[str, int]
    by_cause: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_type.values())

    @property
    def unexplained(self) -> int:
        """Those no failed shadow write accounts for."""
        return self.by_cause.get(UNEXPLAINED, 0)


class Recorder:
    """The discrepancies of one entity type, written by one run."""

    def __init__(self, side: Side, entity_type: str, run_id: str, now: Callable[[], datetime]) -> None:
        """`now` is the clock by which discrepancies are seen."""
        self._side = side
        self._entity_type = entity_type
        self._run_id = run_id
        self.now = now

    def record(self, found: Collection[Found], equal: Mapping[str, int], looked_at: datetime) -> Changes:
        """Enter judgements: what is new, what is still so, what is gone. Entered twice it is entered once.

        Args:
            found: what differs.
            equal: what does not, with the version the shadow holds. A shadow write of that version or an
                earlier one that is on record as failed explains nothing any more, and is removed.
            looked_at: when the look began that this was judged by. What a repair closed, or a verifier
                entered, since then is newer than the judgement, and stays.
        """
        keys = [item.key for item in found] + list(equal)
        if not keys:
            return Changes()
        now = self.now()
        mine = and_(discrepancies.c.entity_type == self._entity_type, discrepancies.c.entity_id.in_(keys))
        query = select(discrepancies).where(mine, discrepancies.c.resolved_at.is_(None))
        with self._side.writing() as connection:
            rows = {row.entity_id: row for row in connection.execute(query.with_for_update())}
            newer = {row.entity_id for row in rows.values() if looked_at <= row.last_seen_at <= now}
            newer.update(self._closed_since(connection, [item.key for item in found], looked_at, now))
            found = [item for item in found if item.key not in newer]
            equal = {key: version for key, version in equal.items() if key not in newer}
            result = changes(found, equal, {key: _open(row) for key, row in rows.items()})
            self._forget_failures(connection, equal)
            # Closed first: there is at most one open discrepancy of a key.
            _close(connection, [*result.replaced, *result.resolved], now)
            self._enter(connection, result.new, now)
            _touch(connection, result.persisting, now)
            resolved = [self._resolution(rows[item.key], equal[item.key], now) for item in result.resolved]
            if resolved:
                connection.execute(insert(evidence_records), resolved)
        return result

    def open_unseen(
        self, since: datetime, after: str | None, limit: int, until: datetime | None = None
    ) -> Sequence[Open]:
        """Read open discrepancies this run has not confirmed, in pages by their id; `since` is its start.

        With `until` only those last seen by then. One last seen in the future, by a clock that is ahead, is
        not seen by this run either.
        """
        query = select(discrepancies).where(self._unseen(since)).order_by(discrepancies.c.id).limit(limit)
        if until is not None:
            query = query.where(discrepancies.c.last_seen_at <= until)
        if after is not None:
            query = query.where(discrepancies.c.id > after)
        with self._side.snapshot() as connection:
            return [_open(row) for row in connection.execute(query)]

    def seen_by(self, since: datetime, count: int) -> datetime | None:
        """Tell by when that many of these were last seen; None where there are no more than that."""
        seen = discrepancies.c.last_seen_at
        query = select(seen).where(self._unseen(since)).order_by(seen).offset(count).limit(1)
        with self._side.snapshot() as connection:
            return connection.execute(query).scalar()

    def _unseen(self, since: datetime) -> ColumnElement[bool]:
        seen = discrepancies.c.last_seen_at
        return and_(
            discrepancies.c.entity_type == self._entity_type,
            discrepancies.c.resolved_at.is_(None),
            or_(seen < since, seen > self.now()),
        )

    def count_open(self) -> OpenCounts:
        """Count what is open now."""
        query = (
            select(discrepancies.c.discrepancy_type, discrepancies.c.cause, func.count())
            .where(discrepancies.c.entity_type == self._entity_type, discrepancies.c.resolved_at.is_(None))
            .group_by(discrepancies.c.discrepancy_type, discrepancies.c.cause)
        )
        types: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        with self._side.snapshot() as connection:
            for kind, cause, count in connection.execute(query):
                types[kind] += count
                causes[cause] += count
        return OpenCounts(dict(sorted(types.items())), dict(sorted(causes.items())))

    def _closed_since(
        self, connection: Connection, keys: Sequence[str], looked_at: datetime, now: datetime
    ) -> Iterable[str]:
        """Name the keys whose discrepancy was closed meanwhile; by evidence, which has an index for it."""
        if not keys:
            return ()
        query = select(evidence_records.c.entity_id).where(
            evidence_records.c.entity_type == self._entity_type,
            evidence_records.c.entity_id.in_(keys),
            evidence_records.c.event_type == EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED.value,
            evidence_records.c.occurred_at.between(looked_at, now),
        )
        return connection.execute(query).scalars()

    def _forget_failures(self, connection: Connection, equal: Mapping[str, int]) -> None:
        rows = [{"key": key, "held": version} for key, version in equal.items() if version]
        if rows:
            statement = delete(outbox).where(
                outbox.c.entity_type == self._entity_type,
                outbox.c.entity_id == bindparam("key"),
                outbox.c.version <= bindparam("held"),
                outbox.c.state == "failed",
            )
            connection.execute(statement, rows)

    def _enter(self, connection: Connection, new: Sequence[Found], now: datetime) -> None:
        if not new:
            return
        ids = [new_id() for _ in new]
        rows = [self._row(item, row_id, now) for item, row_id in zip(new, ids, strict=True)]
        connection.execute(insert(discrepancies), rows)
        evidence = [self._evidence(item, row_id, now) for item, row_id in zip(new, ids, strict=True)]
        connection.execute(insert(evidence_records), evidence)

    def _row(self, item: Found, row_id: str, now: datetime) -> dict[str, Any]:
        return {
            "id": row_id,
            "entity_type": self._entity_type,
            "entity_id": item.key,
            "discrepancy_type": item.difference.discrepancy_type.value,
            "cause": item.cause.name,
            "experiment": item.cause.experiment,
            "experiment_uid": item.cause.experiment_uid,
            "first_seen_at": now,
            "last_seen_at": now,
        }

    def _evidence(self, item: Found, row_id: str, now: datetime) -> dict[str, Any]:
        record = new_record(
            EventType.SHADOW_WRITE_DISCREPANCY,
            Subject(self._entity_type, item.key, item.cause.request_id),
            {
                "discrepancyId": row_id,
                "discrepancyType": item.difference.discrepancy_type.value,
                "cause": item.cause.name,
                "experiment": item.cause.experiment,
                "experimentUid": item.cause.experiment_uid,
                "fields": item.difference.fields or None,
                "primaryVersion": item.difference.primary_version,
                "shadowVersion": item.difference.shadow_version,
                "runId": self._run_id,
            },
            occurred_at=now,
        )
        return record.row()

    def _resolution(self, row: Row[Any], version: int, now: datetime) -> dict[str, Any]:
        record = new_record(
            EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED,
            Subject(self._entity_type, row.entity_id),
            {
                "discrepancyId": row.id,
                "discrepancyType": row.discrepancy_type,
                "cause": row.cause,
                "experiment": row.experiment,
                "experimentUid": row.experiment_uid,
                "shadowVersion": version or None,
                "firstSeenAt": row.first_seen_at.isoformat(),
                "resolvedAt": now.isoformat(),
                "runId": self._run_id,
            },
            occurred_at=now,
        )
        return record.row()


def _open(row: Row[Any]) -> Open:
    return Open(row.id, row.entity_id, row.discrepancy_type, row.cause, row.last_seen_at)


def _close(connection: Connection, closed: Sequence[Open], now: datetime) -> None:
    if closed:
        ids = [item.id for item in closed]
        connection.execute(update(discrepancies).where(discrepancies.c.id.in_(ids)).values(resolved_at=now))


def _touch(connection: Connection, persisting: Sequence[tuple[Open, Found]], now: datetime) -> None:
    if not persisting:
        return
    statement = (
        update(discrepancies)
        .where(discrepancies.c.id == bindparam("row_id"))
        .values(
            last_seen_at=now,
            cause=bindparam("now_cause"),
            experiment=bindparam("now_experiment"),
            experiment_uid=bindparam("now_experiment_uid"),
        )
    )
    rows = [
        {
            "row_id": earlier.id,
            "now_cause": item.cause.name,
            "now_experiment": item.cause.experiment,
            "now_experiment_uid": item.cause.experiment_uid,
        }
        for earlier, item in persisting
    ]
    connection.execute(statement, rows)
