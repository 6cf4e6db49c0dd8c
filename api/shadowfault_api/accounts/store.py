"""The tables `experiment_processes` and `experiment_accounts`, and what is counted for an account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from shadowfault.account import Account
from shadowfault_api.accounts.decision import Asked, Known, Served, primary_figures
from shadowfault_api.evidence import EventType
from shadowfault_api.store.schema import (
    discrepancies,
    evidence_records,
    experiment_accounts,
    experiment_processes,
    job_runs,
    outbox,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shadowfault_api.store.primary import Primary

# A process that counts writes every two seconds: silent for this long, in seconds, it is dead.
_FRESH_SECONDS: Final = 10.0
_INJECTED: Final = "injected"
_UNEXPLAINED: Final = "unexplained"
_UID: Final = evidence_records.c.details["experimentUid"].as_string()
_FAILURE: Final = evidence_records.c.event_type == EventType.SHADOW_WRITE_FAILURE.value


class AccountStore:
    """Accounts and what they are made of, in the primary database."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary

    async def count(
        self, process_id: str, experiment_uid: str, *, requests: int, errors: int, closed: bool
    ) -> None:
        """Write down what a process has served so far under the experiment; `closed` is its last word."""
        now = self._primary.now()
        figures = {"requests": requests, "errors": errors, "counted_at": now}
        if closed:
            figures["closed_at"] = now
        build: Any = postgresql.insert if self._primary.postgresql else sqlite.insert
        statement = build(experiment_processes).values(
            experiment_uid=experiment_uid, process_id=process_id, opened_at=now, **figures
        )
        statement = statement.on_conflict_do_update(
            index_elements=["experiment_uid", "process_id"], set_=figures
        )
        async with self._primary.writing() as connection:
            await connection.execute(statement)

    async def known(self, experiment_uid: str) -> Known:
        """Read what there is about an experiment."""
        async with self._primary.reader.connect() as connection:
            served = await self._served(connection, experiment_uid)
            failures = select(
                func.min(evidence_records.c.occurred_at), func.max(evidence_records.c.occurred_at)
            ).where(_FAILURE, experiment_uid == _UID)
            first, last = (await connection.execute(failures)).one()
            asked, run_state = await _asked(connection, experiment_uid)
            known = Known(served, first, last, asked, run_state)
            if known.ended_at is None:
                return known
            waiting = exists().where(outbox.c.state == "pending", outbox.c.created_at <= known.ended_at)
            in_flight = (await connection.execute(select(waiting))).scalar_one()
        return Known(served, first, last, asked, run_state, in_flight)

    async def now(self) -> datetime:
        """The time by the clock the replicas share."""
        if not self._primary.postgresql:
            return datetime.now(UTC)
        async with self._primary.reader.connect() as connection:
            moment: datetime = (await connection.execute(select(func.now()))).scalar_one()
        return moment

    async def ask(self, experiment_uid: str, asked_at: datetime, run_id: str) -> None:
        """Remember the run an account waits for."""
        await self._write(experiment_uid, asked_at=asked_at, run_id=run_id, result=None)

    async def keep(self, account: Account, asked: Asked) -> None:
        """Keep an account: asked again, it is the same."""
        await self._write(
            account.experiment_uid, asked_at=asked.asked_at, run_id=asked.run_id, result=account.document()
        )

    async def figures(self, experiment_uid: str, known: Known, until: datetime) -> Account:
        """Count what is on record; what carries no experiment is counted by its time, up to `until`."""
        began = known.began_at or until
        async with self._primary.reader.connect() as connection:
            injected, failures = await _failures(connection, experiment_uid, began, until)
            found = await _discrepancies(connection, experiment_uid, began)
        by_type: dict[str, int] = {}
        for kind, _, count in found:
            by_type[kind] = by_type.get(kind, 0) + count
        unexplained = sum(count for _, cause, count in found if cause == _UNEXPLAINED)
        errors, requests = primary_figures(known.served)
        return Account(
            experiment_uid=experiment_uid,
            injected=injected,
            shadow_failures=failures,
            discrepancies=dict(sorted(by_type.items())),
            explained=sum(by_type.values()) - unexplained,
            unexplained=unexplained,
            primary_errors=errors,
            primary_requests=requests,
        )

    async def _served(self, connection: AsyncConnection, experiment_uid: str) -> list[Served]:
        table = experiment_processes.c
        fresh = (table.counted_at > self._primary.now(-_FRESH_SECONDS)).label("fresh")
        query = select(experiment_processes, fresh).where(table.experiment_uid == experiment_uid)
        return [
            Served(
                opened_at=row.opened_at,
                counted_at=row.counted_at,
                closed_at=row.closed_at,
                requests=row.requests,
                errors=row.errors,
                fresh=bool(row.fresh),
            )
            for row in await connection.execute(query.order_by(table.opened_at, table.process_id))
        ]

    async def _write(self, experiment_uid: str, **values: object) -> None:
        build: Any = postgresql.insert if self._primary.postgresql else sqlite.insert
        statement = build(experiment_accounts).values(experiment_uid=experiment_uid, **values)
        statement = statement.on_conflict_do_update(index_elements=["experiment_uid"], set_=values)
        async with self._primary.writing() as connection:
            await connection.execute(statement)


async def _asked(connection: AsyncConnection, experiment_uid: str) -> tuple[Asked | None, str | None]:
    query = (
        select(experiment_accounts, job_runs.c.state)
        .outerjoin(job_runs, job_runs.c.id == experiment_accounts.c.run_id)
        .where(experiment_accounts.c.experiment_uid == experiment_uid)
    )
    row = (await connection.execute(query)).first()
    return (None, None) if row is None else (Asked(row.asked_at, row.run_id, row.result), row.state)


async def _failures(
    connection: AsyncConnection, experiment_uid: str, began: datetime, until: datetime
) -> tuple[int, int]:
    """Failed shadow writes: those the experiment injected, and all others of its time with them."""
    ours = experiment_uid == _UID
    meanwhile = and_(_UID.is_(None), evidence_records.c.occurred_at.between(began, until))
    injected = and_(ours, evidence_records.c.details["failureType"].as_string() == _INJECTED)
    query = select(_number_of(injected), func.count()).where(_FAILURE, or_(ours, meanwhile))
    row = (await connection.execute(query)).one()
    return row[0], row[1]


async def _discrepancies(
    connection: AsyncConnection, experiment_uid: str, began: datetime
) -> list[tuple[str, str, int]]:
    """By type and cause: what the experiment caused, and what was first seen since and is no other's."""
    table = discrepancies.c
    since = and_(table.experiment_uid.is_(None), table.first_seen_at >= began, table.resolved_at.is_(None))
    query = (
        select(table.discrepancy_type, table.cause, func.count())
        .where(or_(table.experiment_uid == experiment_uid, since))
        .group_by(table.discrepancy_type, table.cause)
    )
    return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


def _number_of(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)
