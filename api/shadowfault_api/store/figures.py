"""What a scrape reads from the primary database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Select, exists, func, literal_column, not_, select
from sqlalchemy.exc import DBAPIError

from shadowfault_api.store.outbox import count_by_state, oldest_pending
from shadowfault_api.store.schema import (
    discrepancies,
    discrepancy_checks,
    evidence_leaves,
    evidence_records,
    evidence_seals,
)
from shadowfault_api.store.sweeps import read_sweeps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from shadowfault_api.metrics import DatabaseFigures
    from shadowfault_api.store.primary import Primary


async def read_figures(
    primary: Primary, before: DatabaseFigures
) -> AsyncIterator[tuple[DatabaseFigures, bool]]:
    """Read all figures in one connection.

    Yields:
        After each question all figures there are by then, and whether it had an answer: what one without
        gives is as `before`.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database does not answer at all.
    """
    figures = before
    async with primary.reader.connect() as connection:
        for ask in _QUESTIONS:
            try:
                figures = replace(figures, **await ask(connection))
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                yield figures, False
            else:
                yield figures, True


async def _waiting(connection: AsyncConnection) -> Mapping[str, Any]:
    return {"oldest_pending": await oldest_pending(connection)}


async def _outbox(connection: AsyncConnection) -> Mapping[str, Any]:
    return {"outbox": await count_by_state(connection)}


async def _found(connection: AsyncConnection) -> Mapping[str, Any]:
    kind = (discrepancies.c.entity_type, discrepancies.c.discrepancy_type)
    query = select(*kind, func.count()).group_by(*kind)
    return {"discrepancies": {(row[0], row[1]): row[2] for row in await connection.execute(query)}}


async def _unresolved(connection: AsyncConnection) -> Mapping[str, Any]:
    kind = (discrepancies.c.entity_type, discrepancies.c.discrepancy_type, discrepancies.c.cause)
    query = select(*kind, func.count()).where(discrepancies.c.resolved_at.is_(None)).group_by(*kind)
    return {
        "open_discrepancies": {(row[0], row[1], row[2]): row[3] for row in await connection.execute(query)}
    }


async def _verified(connection: AsyncConnection) -> Mapping[str, Any]:
    sweeps = await read_sweeps(connection)
    going_on = [sweep for sweep in sweeps if sweep.finished_at is None]
    through = [sweep for sweep in sweeps if sweep.finished_at is not None]
    checks = await connection.execute(
        select(discrepancy_checks.c.entity_type, discrepancy_checks.c.last_check_at)
    )
    return {
        "last_checks": {row[0]: row[1] for row in checks},
        "full_sweeps": {sweep.entity_type: sweep.started_at for sweep in through},
        # Where none goes on, the last one has covered everything.
        "uncovered": {sweep.entity_type: sweep.uncovered for sweep in [*through, *going_on]},
        "sweeps_due": {sweep.entity_type: sweep.due_at for sweep in going_on if sweep.due_at is not None},
    }


async def _sealed(connection: AsyncConnection) -> Mapping[str, Any]:
    query = unsealed(postgresql=connection.dialect.name == "postgresql")
    newest = select(func.max(evidence_seals.c.sealed_at))
    return {
        "unsealed_evidence": (await connection.execute(query)).scalar_one(),
        "last_seal": (await connection.execute(newest)).scalar(),
    }


# Each on its own: one that takes too long, or is not allowed, keeps no other from its answer. What takes long
# comes last: they share the time of a read.
_QUESTIONS: Final[tuple[Callable[[AsyncConnection], Awaitable[Mapping[str, Any]]], ...]] = (
    _waiting,
    _verified,
    _unresolved,
    _sealed,
    _found,
    _outbox,
)


def unsealed(*, postgresql: bool) -> Select[Any]:
    """Build the count of records without a seal; it looks only where the newest seal left some."""
    below = select(evidence_seals.c.sealed_below).order_by(evidence_seals.c.number.desc()).limit(1)
    position: ColumnElement[int] = literal_column(
        "evidence_records.txid" if postgresql else "evidence_records.rowid"
    )
    sealed = exists().where(
        evidence_leaves.c.record_id == evidence_records.c.id,
        evidence_leaves.c.occurred_at == evidence_records.c.occurred_at,
    )
    return (
        select(func.count())
        .select_from(evidence_records)
        .where(position >= func.coalesce(below.scalar_subquery(), -(2**62)), not_(sealed))
    )
