"""Retention: records of whole months go, their seals and leaves stay, and a record of evidence says so."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from sqlalchemy import MetaData, and_, delete, exists, func, insert, not_, select, text
from sqlalchemy.exc import DBAPIError

from shadowfault_api.evidence.record import EventType, Subject, new_record
from shadowfault_api.store.schema import evidence_leaves, evidence_records

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Engine, Table

_PARTITION: Final = re.compile(r"evidence_records_(\d{4})_(\d{2})")
_ENTITY: Final = "EvidenceRecord"
_TRIGGER: Final = "evidence_records_no_delete"


# Who reads evidence for long makes us wait, and who writes it waits behind us: for a moment, and then again.
_LOCK_TIMEOUT: Final = "500ms"
_ATTEMPTS: Final = 20
_PAUSE_SECONDS: Final = 1.0
_LOCK_NOT_AVAILABLE: Final = "55P03"


class RetentionError(Exception):
    """A month was not removed; the message says why, and `removed` are those that were before."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.removed: list[Month] = []


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month in UTC and how many records it has."""

    year: int
    month: int
    records: int = 0

    @property
    def name(self) -> str:
        """As in 2026-01."""
        return f"{self.year:04}-{self.month:02}"

    @property
    def begin(self) -> datetime:
        """Its first instant."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first instant of the next."""
        return datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=UTC)

    def holds(self, at: ColumnElement[datetime]) -> ColumnElement[bool]:
        """Build the condition for its records."""
        return and_(at >= self.begin, at < self.end)


def prune(
    engine: Engine, before: datetime, *, dry_run: bool = False, now: datetime | None = None
) -> list[Month]:
    """Remove months that end by `before` and are over, one transaction each; returns what was removed.

    On PostgreSQL a month's partition is dropped, which takes its owner. Records that found no partition of
    their month stay.

    Raises:
        RetentionError: a month has records that are not sealed, or somebody reads on and on; it and what is
            newer stay.
        sqlalchemy.exc.SQLAlchemyError: the database refuses.
    """
    now = now or datetime.now(UTC)
    with engine.connect() as connection:
        months = _partitions(connection) if _postgresql(connection) else _months(connection)
    removed: list[Month] = []
    for month in months:
        if month.end > min(before, now):
            continue
        try:
            counted = _prune_one(engine, month, now, dry_run=dry_run)
        except RetentionError as error:
            error.removed = removed
            raise
        if counted.records:
            removed.append(counted)
    return removed


def _prune_one(engine: Engine, month: Month, now: datetime, *, dry_run: bool) -> Month:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            with engine.begin() as connection:
                counted = _counted(connection, month)
                if not dry_run and (counted.records or _postgresql(connection)):
                    _remove(connection, counted, now)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        else:
            return counted
    raise RetentionError(
        f"{month.name} was not removed: somebody reads evidence all the time, such as an export or a backup. "
        "Run it again when that is over"
    )


def _counted(connection: Connection, month: Month) -> Month:
    if _postgresql(connection):
        # Neither a read nor a write of evidence may wait for us for long, and nothing may come in meanwhile.
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        connection.execute(text(f"LOCK TABLE {_partition(month)} IN SHARE MODE"))
    records = _table(connection, month)
    sealed = exists().where(
        evidence_leaves.c.record_id == records.c.id, evidence_leaves.c.occurred_at == records.c.occurred_at
    )
    count = select(func.count()).select_from(records).where(month.holds(records.c.occurred_at))
    open_ones = connection.execute(count.where(not_(sealed))).scalar_one()
    if open_ones:
        raise RetentionError(
            f"{month.name} has {open_ones} records that are not sealed: run `shadowfault evidence seal` first"
        )
    return Month(month.year, month.month, connection.execute(count).scalar_one())


def _remove(connection: Connection, month: Month, now: datetime) -> None:
    declared = _declared(connection, month)
    if _postgresql(connection):
        connection.execute(text(f"DROP TABLE {_partition(month)}"))
    else:
        _delete_past_the_trigger(connection, month)
    if month.records:
        declared[month.name] += month.records
    if declared:
        rows = [
            new_record(
                EventType.EVIDENCE_PRUNED, Subject(_ENTITY, name), {"records": count}, occurred_at=now
            ).row()
            for name, count in sorted(declared.items())
        ]
        connection.execute(insert(evidence_records), rows)


def _declared(connection: Connection, month: Month) -> Counter[str]:
    """Read what this month's own records say was pruned before: they go too, so it has to be said again."""
    columns = evidence_records.c
    mine = and_(columns.event_type == EventType.EVIDENCE_PRUNED.value, month.holds(columns.occurred_at))
    declared: Counter[str] = Counter()
    for name, details in connection.execute(select(columns.entity_id, columns.details).where(mine)):
        declared[name] += details["records"]
    return declared


def _delete_past_the_trigger(connection: Connection, month: Month) -> None:
    """Take the trigger away for this one transaction (SQLite)."""
    definition = select(text("sql")).select_from(text("sqlite_master")).where(text("name = :name"))
    trigger = connection.execute(definition, {"name": _TRIGGER}).scalar_one()
    connection.execute(text(f"DROP TRIGGER {_TRIGGER}"))
    connection.execute(delete(evidence_records).where(month.holds(evidence_records.c.occurred_at)))
    connection.exec_driver_sql(trigger)


def _partitions(connection: Connection) -> list[Month]:
    names = connection.execute(
        text(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
            "WHERE inhparent = 'evidence_records'::regclass ORDER BY relname"
        )
    ).scalars()
    found = (_PARTITION.fullmatch(name) for name in names)
    return [Month(int(match[1]), int(match[2])) for match in found if match]


def _months(connection: Connection) -> list[Month]:
    oldest, newest = connection.execute(
        select(func.min(evidence_records.c.occurred_at), func.max(evidence_records.c.occurred_at))
    ).one()
    months: list[Month] = []
    if oldest is None:
        return months
    month = Month(oldest.year, oldest.month)
    while month.begin <= newest:
        months.append(month)
        month = Month(month.end.year, month.end.month)
    return months


def _table(connection: Connection, month: Month) -> Table:
    """What holds the records of a month: on PostgreSQL its partition."""
    if not _postgresql(connection):
        return evidence_records
    return evidence_records.to_metadata(MetaData(), name=_partition(month))


def _partition(month: Month) -> str:
    return f"evidence_records_{month.year:04}_{month.month:02}"


def _postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"
