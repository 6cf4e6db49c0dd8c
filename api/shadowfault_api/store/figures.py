"""What a scrape reads from the primary database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, exists, func, literal_column, not_, select

from shadowfault_api.metrics import DatabaseFigures
from shadowfault_api.store.outbox import count_by_state
from shadowfault_api.store.schema import (
    discrepancies,
    discrepancy_checks,
    evidence_leaves,
    evidence_records,
    evidence_seals,
)
from shadowfault_api.store.sweeps import read_sweeps

if TYPE_CHECKING:
    from shadowfault_api.store.primary import Primary


async def read_figures(primary: Primary) -> DatabaseFigures:
    """Read all figures in one connection."""
    kind = (discrepancies.c.entity_type, discrepancies.c.discrepancy_type)
    found = select(*kind, func.count()).group_by(*kind)
    unresolved = (
        select(*kind, discrepancies.c.cause, func.count())
        .where(discrepancies.c.resolved_at.is_(None))
        .group_by(*kind, discrepancies.c.cause)
    )
    async with primary.reader.connect() as connection:
        sweeps = await read_sweeps(connection)
        going_on = [sweep for sweep in sweeps if sweep.finished_at is None]
        through = [sweep for sweep in sweeps if sweep.finished_at is not None]
        return DatabaseFigures(
            outbox=await count_by_state(connection),
            discrepancies={(row[0], row[1]): row[2] for row in await connection.execute(found)},
            open_discrepancies={
                (row[0], row[1], row[2]): row[3] for row in await connection.execute(unresolved)
            },
            last_checks={row[0]: row[1] for row in await connection.execute(select(discrepancy_checks))},
            full_sweeps={sweep.entity_type: sweep.started_at for sweep in through},
            # Where none goes on, the last one has covered everything.
            uncovered={sweep.entity_type: sweep.uncovered for sweep in [*through, *going_on]},
            sweeps_due={sweep.entity_type: sweep.due_at for sweep in going_on if sweep.due_at is not None},
            unsealed_evidence=(await connection.execute(unsealed(primary.postgresql))).scalar_one(),
            last_seal=(await connection.execute(select(func.max(evidence_seals.c.sealed_at)))).scalar(),
        )


def unsealed(postgresql: bool) -> Select[Any]:
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
